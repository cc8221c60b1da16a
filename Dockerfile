# tuner with the vLLM that it measures: docker build --build-arg VLLM=v0.22.1 --tag tuner .
# Run it as the user 1000, or as root with --cap-add SYS_ADMIN to set limits (docs/cluster.md).
ARG VLLM=v0.22.1
FROM vllm/vllm-openai:${VLLM}

COPY pyproject.toml README.md LICENSE MANIFEST.in /src/
COPY tuner /src/tuner
COPY search_spaces /src/search_spaces
COPY workloads /src/workloads
RUN python3 -m pip install --no-cache-dir '/src[metrics,parquet,postgres]' \
    && python3 -m pip check \
    && tuner --version \
    && rm -rf /src \
    && mkdir -p /data /var/lib/tuner \
    && chown 1000:1000 /data /var/lib/tuner

ENV TUNER_STORE=/data/tuner.db \
    TUNER_STATE_DIR=/var/lib/tuner \
    HOME=/data
WORKDIR /data
USER 1000
ENTRYPOINT ["tuner"]
CMD ["--help"]
