# First image: CUDA with its compiler, and a user who is not root.
#
# torch brings its own CUDA libraries; nvcc is for DeepSpeed, which compiles its operators on their
# first use. Only the first number must be that of torch.version.cuda. A machine without a GPU runs
# it too; BASE=ubuntu:24.04 then saves gigabytes.
ARG BASE=nvidia/cuda:13.0.1-devel-ubuntu24.04
FROM ${BASE}

SHELL ["/bin/bash", "-o", "pipefail", "-c"]

# Distributions withdraw old versions of their packages: pinned, this would not build next month.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        build-essential ca-certificates curl git make ninja-build openssh-client tini \
    && rm -rf /var/lib/apt/lists/*

# The numbers of whoever owns the shared volume: files on a NAS know people by their number only.
# They may be taken in the image (a Mac's group is 20, which is `dialout` here): --non-unique.
ARG UID=1000
ARG GID=1000
RUN if id ubuntu > /dev/null 2>&1; then userdel --remove ubuntu; fi \
    && groupadd --non-unique --gid "${GID}" course \
    && useradd --no-log-init --create-home --non-unique --uid "${UID}" --gid "${GID}" \
        --shell /bin/bash course \
    && install --directory --owner course --group course /shared /opt/conda

USER ${UID}:${GID}
WORKDIR /home/course
