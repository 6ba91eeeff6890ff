# backupd and, from the same image, the helper containers that it starts.
#
#     docker build -t backupd .
#
# BASE_IMAGE is any Debian with Python 3.11 or later (bookworm, trixie), or one of your own on top of it: one that trusts a
# company's certificate authority, for instance. Nothing here depends on the architecture.
#
# No VOLUME, on purpose: each helper would get anonymous volumes for them.
ARG BASE_IMAGE=debian:trixie-slim

# What the program needs of Debian: GNU tar for the helpers, zstd and age for recover.py, tini as process 1.
FROM ${BASE_IMAGE} AS base
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        age ca-certificates python3 tar tini tzdata zstd \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/log/apt /var/log/dpkg.log \
        /usr/share/doc/* /usr/share/man/* \
    && groupadd --gid 10001 backupd \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/backupd --shell /usr/sbin/nologin backupd \
    && install -d -m 0700 -o backupd -g backupd /backups /run/backupd /var/lib/backupd

# The locked dependencies, by hash, in a virtual environment without pip. Of botocore's descriptions of some 400 services
# those stay that S3 and its ways to log in take.
FROM ${BASE_IMAGE} AS dependencies
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        binutils ca-certificates python3 python3-venv
WORKDIR /build
COPY requirements/build.txt requirements/runtime.txt requirements/
RUN python3 -m venv tools \
    && tools/bin/pip install --no-cache-dir --require-hashes -r requirements/build.txt \
    && python3 -m venv --without-pip /opt/backupd \
    && tools/bin/pip --python /opt/backupd/bin/python install --no-cache-dir --only-binary :all: \
        --require-hashes -r requirements/runtime.txt \
    && cd /opt/backupd/lib/python3*/site-packages \
    && find botocore/data -mindepth 1 -maxdepth 1 -type d \
        ! -name s3 ! -name sts ! -name sso ! -name sso-oidc ! -name signin -exec rm -r {} + \
    && find . -name '*.so' -exec strip --strip-unneeded {} +

# backupd itself, in a layer of its own: an update carries little more than that.
FROM dependencies AS program
COPY pyproject.toml README.md ./
COPY backupd backupd
RUN tools/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir dist . \
    && tools/bin/pip --python /opt/backupd/bin/python install --no-cache-dir --no-deps --no-index --root /staged dist/*.whl

FROM base
ARG BASE_IMAGE
ARG VERSION=dev
LABEL org.opencontainers.image.title="backupd" \
      org.opencontainers.image.description="Backups of a Docker Compose stack's volumes, proven by restoring them" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.base.name="${BASE_IMAGE}"
COPY --from=dependencies /opt/backupd /opt/backupd
COPY --from=program /staged /
ENV PATH=/opt/backupd/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /
HEALTHCHECK --interval=30s --timeout=20s --start-period=60s --retries=3 CMD ["backupd", "healthcheck"]
ENTRYPOINT ["tini", "--", "backupd"]
CMD ["run"]
