# Two stages: what builds is not in the image that runs. Every Python package is pinned by its hash.
FROM python:3.11.13-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
RUN python -m venv /opt/bridge
COPY requirements-image.lock pyproject.toml README.md LICENSE ./
RUN /opt/bridge/bin/pip install --require-hashes -r requirements-image.lock
COPY bridge bridge
COPY cohort cohort
COPY hospital hospital
COPY mappings mappings
RUN /opt/bridge/bin/pip install --no-deps --no-build-isolation . && /opt/bridge/bin/pip uninstall --yes pip

FROM python:3.11.13-slim-bookworm
RUN useradd --uid 10001 --create-home bridge && install -d -o bridge -g bridge -m 700 /data
COPY --from=build /opt/bridge /opt/bridge
ENV PATH=/opt/bridge/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
VOLUME /data
EXPOSE 8080 11112
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/healthz', timeout=4)"]
ENTRYPOINT ["bridge"]
CMD ["run", "--config", "/etc/bridge/bridge.toml"]
