# NVIDIA GPUs. From the top of a clone:
#   docker build -f experiments/docker/gpu.Dockerfile -t rlcd_jax:gpu .
#   docker run --rm --gpus all -v "$PWD/runs:/work/runs" -v rlcd_cache:/cache \
#       rlcd_jax:gpu quickstart
# The host has a driver of CUDA 13 (580 or later) and NVIDIA's container toolkit; CUDA
# itself comes with the wheels of jax.
FROM python:3.12-slim
WORKDIR /src
COPY setup.py README.md LICENSE ./
COPY rlcd_jax rlcd_jax
COPY configs configs
COPY experiments experiments
RUN pip install --no-cache-dir '.[cuda]'
# Models, data and compiled programs: a volume, so that the next container has them.
ENV XDG_CACHE_HOME=/cache
VOLUME /cache
WORKDIR /work
ENTRYPOINT ["rlcd"]
