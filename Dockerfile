FROM python:3.11-slim
WORKDIR /app
COPY requirements.lock pyproject.toml README.md LICENSE ./
RUN pip install --no-cache-dir --require-hashes -r requirements.lock
COPY bridge bridge
COPY cohort cohort
COPY hospital hospital
COPY mappings mappings
RUN pip install --no-cache-dir --no-deps --no-build-isolation . && useradd --uid 10001 --create-home bridge \
    && mkdir /data && chown bridge /data
USER bridge
VOLUME /data
EXPOSE 8080 11112
ENTRYPOINT ["bridge"]
CMD ["run", "--config", "/etc/bridge/bridge.toml"]
