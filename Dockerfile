# fewshot in a container, for CPU and CUDA.
#   docker build -t fewshot .                                   # torch as the package index has it: with CUDA
#   docker build -t fewshot --build-arg TORCH_INDEX=ADDRESS .   # ADDRESS of PyTorch's wheels for CPU: 4 GB less
#   docker run --rm --gpus all --shm-size 2g -v "$PWD:/work" fewshot fit --config glyphs/protonet_5way1shot
# The wheels bring CUDA's libraries; the host needs the driver and the NVIDIA Container Toolkit.
ARG PYTHON=3.11
FROM python:${PYTHON}-slim AS base
ARG TORCH_INDEX=""
ARG EXTRAS="pretrained,sklearn,export"
# a compiler, for torch.compile; make, for the targets of the project
RUN apt-get update && apt-get install --yes --no-install-recommends g++ git make && rm -rf /var/lib/apt/lists/*
RUN if [ -n "$TORCH_INDEX" ]; then \
        pip install --no-cache-dir "torch>=2.6,<2.16" "torchvision>=0.21,<0.31" --index-url "$TORCH_INDEX"; \
    fi

FROM base AS dev
WORKDIR /workspace

FROM base AS program
COPY pyproject.toml setup.py README.md LICENSE /source/
COPY fewshot /source/fewshot
COPY configs /source/configs
COPY results /source/results
RUN pip install --no-cache-dir "/source[$EXTRAS]" && rm -rf /source
WORKDIR /work
ENTRYPOINT ["fewshot"]
