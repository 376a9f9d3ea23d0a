# Tailrace with PyTorch for the CPU. For CUDA: --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128
FROM python:3.12-slim AS build

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /src
RUN python -m venv /opt/tailrace
COPY constraints.txt ./
RUN /opt/tailrace/bin/pip install --no-cache-dir -c constraints.txt --extra-index-url "$TORCH_INDEX" torch
COPY pyproject.toml setup.py README.md LICENSE ./
# tailrace/ holds symbolic links to the other four folders, which COPY keeps.
COPY streams ./streams
COPY inference ./inference
COPY retrain ./retrain
COPY monitoring ./monitoring
COPY tailrace ./tailrace
RUN /opt/tailrace/bin/pip install --no-cache-dir -c constraints.txt --extra-index-url "$TORCH_INDEX" .

FROM python:3.12-slim

RUN useradd --create-home --uid 10001 tailrace \
    && install -d -o tailrace -g tailrace /pipeline /keys
COPY --from=build /opt/tailrace /opt/tailrace
ENV PATH=/opt/tailrace/bin:$PATH \
    PYTHONUNBUFFERED=1
USER tailrace
WORKDIR /pipeline
EXPOSE 9464
STOPSIGNAL SIGTERM
ENTRYPOINT ["tailrace"]
CMD ["--help"]
