"""The only list of dependencies. `constraints.txt` pins the versions that are tested together."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"', (ROOT / "src/bmc/__init__.py").read_text(encoding="utf-8"), re.MULTILINE)

CORE = [
    "torch>=2.8",
    "transformers>=5.24",  # generate(cache=…)
    "trl>=1.16,<1.17",  # BMCTrainer subclasses its DPOTrainer
    "datasets>=4.0",
    "accelerate>=1.10",
    "deepspeed>=0.17",
    "peft>=0.17",
    "rapidfuzz>=3.9",
    "regex>=2024.11.6",  # Unicode's word boundaries
    "openai>=2.0",
    "pyyaml>=6.0",
    "pydantic>=2.8",  # the types of a recipe's values
    "mpmath>=1.3",  # values of mathematical answers
    "scipy>=1.13",  # intervals and tests
    "reasoning-gym>=0.1.20",  # tasks with a verifier, no download
]

EXTRAS = {
    "vllm": ["vllm>=0.10"],
    "embeddings": ["sentence-transformers>=3.0"],  # similarities of bridged responses by meaning
    # alpaca-eval imports pkg_resources, which newer setuptools lack
    "eval": ["alpaca-eval>=0.6.6", "lm-eval>=0.4.9", "setuptools<81"],
    "qlora": ["bitsandbytes>=0.50"],
    "plots": ["matplotlib>=3.9"],
    "handbook": ["alignment-handbook @ git+https://github.com/huggingface/alignment-handbook"],
    "dev": [
        "bitsandbytes>=0.50",  # QLoRA is tested on a CPU
        "pytest>=8.0",
        "pytest-xdist>=3.6",
        "hypothesis>=6.100",
        "ruff>=0.9",
        "mypy>=1.11",
        "math-verify>=0.9",  # a peer that benchmarks/answers.py measures
        "types-PyYAML",
        "playwright>=1.50",  # drives a browser that is already there, to test the report
        "gguf>=0.17",  # `make` unpacks SmolLM2-135M from a GGUF file
        "fastapi>=0.115",  # for a test against `transformers serve`, as is
        "uvicorn>=0.30",
    ],
}

setup(
    name="bmc",
    version=VERSION[1],
    description="Preference optimisation with bridged pairs and token weights (DPO-BMC)",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    keywords=["preference optimization", "DPO", "alignment", "language models", "RLHF"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    package_dir={"": "src"},
    packages=find_packages("src"),
    package_data={
        "bmc": [
            "py.typed",
            "bridging/prompts/*.txt",
            "judging/*.yaml",  # a published prompt
            "web/*.css",
            "analysis/page/*.css",
            "analysis/page/*.html",
            "analysis/page/*.js",
        ]
    },
    python_requires=">=3.11",
    install_requires=CORE,
    extras_require=EXTRAS,
)
