FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
RUN python -m venv /opt/batchbell \
 && /opt/batchbell/bin/pip install --no-cache-dir --constraint constraints.txt '.[azure,tables]'

FROM python:3.13-slim
RUN groupadd --gid 10001 batchbell \
 && useradd --uid 10001 --gid 10001 --home-dir /data --no-create-home batchbell \
 && install --directory --owner batchbell --group batchbell /data
COPY --from=build /opt/batchbell /opt/batchbell
# /data holds the database and the key of its secrets, batchbell.db.key: keep the volume, and back
# both up. BATCHBELL_MASTER_KEY takes the place of the file.
# From outside a container only 0.0.0.0 can be reached, and Batchbell listens there once an API
# key is made: see docs/howto/deploy-with-docker.md.
ENV PATH=/opt/batchbell/bin:$PATH \
    DATABASE_PATH=/data/batchbell.db \
    HOST=0.0.0.0 \
    PORT=3000
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 3000
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s \
  CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f\"http://127.0.0.1:{os.environ['PORT']}/healthz\", timeout=3)"]
CMD ["batchbell", "serve"]
