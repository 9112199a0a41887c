# Second image: the course's environment. It changes when requirements do, not when the code does.
ARG BASE=course-cuda
ARG MICROMAMBA=mambaorg/micromamba:2.3.0
# hadolint ignore=DL3006
FROM ${MICROMAMBA} AS micromamba

# The first image, built here a moment ago: it has no other version.
# hadolint ignore=DL3006
FROM ${BASE}

COPY --from=micromamba /bin/micromamba /usr/local/bin/micromamba

ENV MAMBA_ROOT_PREFIX=/opt/conda \
    PATH=/opt/conda/envs/course/bin:${PATH} \
    PIP_NO_CACHE_DIR=1

# `-e .` needs the package's description and one file of it to be there; the code itself comes last.
COPY --chown=course:course environment.yml requirements.lock pyproject.toml README.md LICENSE /home/course/course/
WORKDIR /home/course/course
RUN mkdir --parents src/course_utils \
    && echo '__version__ = "0"' > src/course_utils/__init__.py \
    && micromamba create --yes --file environment.yml \
    && /opt/conda/envs/course/bin/pip install --no-deps --editable . \
    && micromamba clean --all --yes
