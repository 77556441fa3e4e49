# Cloud TPU VMs, the same container on every host. From the top of a clone:
#   docker build -f experiments/docker/tpu.Dockerfile -t rlcd_jax:tpu .
#   docker run --rm --privileged --network host -v /shared:/shared -v rlcd_cache:/cache \
#       rlcd_jax:tpu run --config rlcd:task=cheerful --workdir /shared/rlcd
# The chips are devices of the host (--privileged), and hosts talk over its network.
FROM python:3.12-slim
WORKDIR /src
COPY setup.py README.md LICENSE ./
COPY rlcd_jax rlcd_jax
COPY configs configs
COPY experiments experiments
RUN pip install --no-cache-dir '.[tpu]'
# Models, data and compiled programs: a volume, so that the next container has them.
ENV XDG_CACHE_HOME=/cache
VOLUME /cache
WORKDIR /work
ENTRYPOINT ["rlcd"]
