# Image of the web page and the commands:
#     docker build -t derain .                                        with CUDA (or on a CPU)
#     docker build -t derain --build-arg TORCH_INDEX=URL .            without CUDA, 4 GB smaller
#     docker run --rm --gpus all -p 127.0.0.1:7860:7860 derain        the page, on a GPU
#     docker run --rm -p 127.0.0.1:7860:7860 derain                   the page, at http://127.0.0.1:7860
#     docker run --rm -v "$PWD:/data" derain derain photographs -o restored
# The versions are those of requirements.txt.
FROM python:3.12-slim-bookworm

# gcc compiles the kernels for the processor of the host; tini forwards signals
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev libgl1 libglib2.0-0 tini \
    && rm -rf /var/lib/apt/lists/*

# URL of the package index that PyTorch's page "Get started" names for pip and CPU. By default the
# builds with CUDA are installed, which also run without a GPU.
ARG TORCH_INDEX=""
WORKDIR /opt/derain
COPY requirements.txt ./
RUN sed '/^# for tests/,$d' requirements.txt > pins.txt \
    && grep '^torch' pins.txt > torch.txt \
    && python -m pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} -r torch.txt \
    && python -m pip install --no-cache-dir -r pins.txt

COPY . .
RUN python -m pip install --no-cache-dir --no-deps . \
    && useradd --create-home --uid 1000 derain
USER 1000
WORKDIR /data
EXPOSE 7860
ENTRYPOINT ["tini", "--"]
CMD ["derain-app", "--host", "0.0.0.0"]
