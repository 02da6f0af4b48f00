"""The only list of dependencies. `constraints.txt` pins the versions that are tested together."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"', (ROOT / "src/bmc/__init__.py").read_text(encoding="utf-8"), re.MULTILINE)

# A floor is the oldest version that is tested, which is the one in `constraints.txt`.
CORE = [
    "torch>=2.13",  # 2.14 passes the tests too
    "transformers>=5.24,<5.25",  # private members of its Trainer are used
    "trl>=1.16,<1.17",  # BMCTrainer subclasses its DPOTrainer
    "datasets>=5.2",
    "accelerate>=1.15",
    "deepspeed>=0.19.8",
    "peft>=0.21.2",
    "rapidfuzz>=3.14",
    "regex>=2026.11",  # Unicode's word boundaries
    "openai>=3.57",
    "jinja2>=3.1.6",  # pages
    "matplotlib>=3.11",  # figures
    "filelock>=4.2",  # one process at a time on a response cache
    "pyyaml>=6.0",
    "pydantic>=2.14",  # the types of a recipe's values
    "mpmath>=1.3",  # values of mathematical answers
    "scipy>=1.17",  # intervals and tests
    "reasoning-gym>=0.1.25",  # tasks with a verifier, no download
]

EXTRAS = {
    "vllm": ["vllm>=0.30,<0.31"],  # the only release that takes our transformers; newer ones cap it below
    "embeddings": ["sentence-transformers>=6.2"],  # similarities of bridged responses by meaning
    # alpaca-eval imports pkg_resources, which newer setuptools lack
    "eval": ["alpaca-eval>=0.6.6", "lm-eval>=0.4.13", "setuptools<81"],
    "qlora": ["bitsandbytes>=0.50.2"],
    "dev": [
        "bitsandbytes>=0.50.2",  # QLoRA is tested on a CPU
        "pytest>=9.2",
        "pytest-xdist>=3.8",
        "hypothesis>=6.170",
        "ruff>=0.17.6",
        "mypy>=2.4",
        "math-verify>=0.9",  # a peer that benchmarks/answers.py measures
        "types-PyYAML>=6.0",
        "playwright>=1.65",  # drives a browser that is already there, to test the report
        "gguf>=0.19",  # `make` unpacks SmolLM2-135M from a GGUF file
        "fastapi>=0.136.3",  # for a test against `transformers serve`, as is
        "uvicorn>=0.54",
        "setuptools>=68",  # builds the wheel that is tested
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
            "evaluation/*.yaml",  # a published prompt
            "*/templates/*",  # of pages and model cards
        ]
    },
    entry_points={"console_scripts": ["bmc = bmc.cli:main"]},
    python_requires=">=3.11",
    install_requires=CORE,
    extras_require=EXTRAS,
)
