"""The distributions that the flavors which come with modelpack need, and what these need in turn.

A package that asks for these, as its user's own index has them, asks for no code of a stranger's choice; any other
distribution is the package's own choice (spec/10-environment.md#creating-an-environment).
"""

from __future__ import annotations

__all__ = ["KNOWN"]

_FLAVORS = """
annotated-doc annotated-types anyio certifi click cloudpickle coloredlogs filelock flatbuffers fsspec h11 hf-xet
httpcore httpcore2 httpx httpx2 huggingface-hub humanfriendly idna jinja2 joblib lightgbm markdown-it-py markupsafe
mdurl ml-dtypes mpmath narwhals networkx numpy onnx onnxruntime packaging pandas prettytable protobuf py4j pyarrow
pydantic pydantic-core pygments pyspark python-dateutil pytz pyyaml regex requests rich safetensors scikit-learn scipy
setuptools shellingham six skl2onnx skops sympy threadpoolctl tokenizers torch tqdm transformers truststore typer
typing-extensions typing-inspection tzdata urllib3 wcwidth xgboost
"""

# What torch and xgboost bring where they are built for CUDA. Each name is one that they ask for: nobody keeps others
# from registering names that begin alike, so "all that is called nvidia-…" would be a stranger's choice again.
_CUDA = """
cuda-bindings cuda-pathfinder cuda-toolkit
nvidia-cublas nvidia-cuda-cupti nvidia-cuda-nvrtc nvidia-cuda-runtime nvidia-cufft nvidia-cufile nvidia-curand
nvidia-cusolver nvidia-cusparse nvidia-nvjitlink nvidia-nvtx
nvidia-cublas-cu12 nvidia-cuda-cupti-cu12 nvidia-cuda-nvrtc-cu12 nvidia-cuda-runtime-cu12 nvidia-cufft-cu12
nvidia-cufile-cu12 nvidia-curand-cu12 nvidia-cusolver-cu12 nvidia-cusparse-cu12 nvidia-nvjitlink-cu12 nvidia-nvtx-cu12
nvidia-cudnn-cu12 nvidia-cusparselt-cu12 nvidia-nccl-cu12 nvidia-nvshmem-cu12
nvidia-cudnn-cu13 nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvshmem-cu13
triton
"""

KNOWN = frozenset((_FLAVORS + _CUDA).split())
