# Third image: the course itself, and JupyterLab in front of it.
ARG BASE=course-conda
# The second image, built here a moment ago: it has no other version.
# hadolint ignore=DL3006
FROM ${BASE}

COPY --chown=course:course . /home/course/course

# What must survive the container lies on the shared volume: data, runs, and the learner's progress.
ENV COURSE_DATA_DIR=/shared/data \
    COURSE_RUNS_DIR=/shared/runs \
    COURSE_HOME=/shared/home

EXPOSE 8888
VOLUME /shared

# Without a token it does not start: whoever reaches the port could run programs here.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["curl", "--fail", "--silent", "--output", "/dev/null", "http://127.0.0.1:8888/api"]

# tini passes signals on: `docker stop` reaches the container's command as SIGTERM, and a training
# that was started as the command saves a checkpoint.
ENTRYPOINT ["/usr/bin/tini", "-g", "--", "/home/course/course/docker/entrypoint.sh"]
CMD ["jupyter", "lab", "--ip=0.0.0.0", "--port=8888", "--no-browser", "--notebook-dir=/home/course/course"]
