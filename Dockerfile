# The image of every node, for cluster.yaml and jobs/rayjob.yaml; docs/clusters.md says how to build it. PyTorch from PyPI
# brings CUDA along: a GPU's machine needs NVIDIA's driver and its container toolkit, and no CUDA.
FROM python:3.12-slim-bookworm

# rsync and ssh are what Ray's launcher works with, wget KubeRay's probes, and g++ what compiled training steps need.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ openssh-client rsync wget \
    && rm -rf /var/lib/apt/lists/*

# Gigabytes that change with constraints.txt only, and then the code. With boto3 the head asks AWS for nodes, and MLflow
# keeps artifacts on S3.
WORKDIR /opt/qa_ray
COPY constraints.txt pyproject.toml README.md LICENSE ./
RUN mkdir qa_ray && touch qa_ray/__init__.py \
    && pip install --no-cache-dir --constraint constraints.txt '.[sample]' boto3
COPY qa_ray qa_ray
RUN pip install --no-cache-dir --no-deps --force-reinstall .

# Ray's launcher mounts the token and cluster.env from the machine's first user, whose number this must be, below HOME.
RUN useradd --create-home --uid 1000 --shell /bin/bash qa \
    && install --directory --owner=qa --group=qa /home/qa/.ray /home/qa/qa_ray
ENV HOME=/home/qa
USER 1000
WORKDIR /home/qa
