"""Installation of rlcd_jax: one core set of packages, extras by purpose."""

import pathlib

from setuptools import find_packages, setup

CORE = [
    "jax>=0.10",
    "flax>=0.12.8",
    "optax>=0.2.8",
    "orbax-checkpoint>=0.12",
    "transformers>=5.0",
    "tokenizers>=0.22",
    "safetensors>=0.5",
    "gguf>=0.17",
    "tensorflow-datasets>=4.9.9",
    "array-record>=0.8",
    "pyarrow>=16",
    "grain>=0.2.12",
    "ml-collections>=1.1",
    "etils[epath]>=1.12",
    "absl-py>=2.1",
    "numpy>=2.0",
    "scipy>=1.13",
    "tensorboardX>=2.6",
    "rich>=13",
    "jinja2>=3.1",
    "PyYAML>=6",
    "matplotlib>=3.9",
    "httpx>=0.27",
    "anyio>=4.0",
    "vaderSentiment>=3.3.2",
    "zstandard>=0.22",  # JAX packs compiled programs with it, where it is there
]

EXTRAS = {
    "test": [
        "pytest>=8",
        "pytest-xdist>=3.6",
        "hypothesis>=6.100",
        "ruff>=0.8",
        "sentencepiece>=0.2",
        "qwix>=0.1.8",  # a frozen base in eight bits
        "krippendorff>=0.9",  # these two say what our statistics are held against
        "statsmodels>=0.14",
        "axe-core-python>=0.1",  # the script that judges pages, and nothing else
        "setuptools>=65",  # which Python 3.12 and later no longer bring
    ],
    "int8": ["qwix>=0.1.8"],
    "profile": ["xprof>=2.20"],
    "wandb": ["wandb>=0.19"],
    "mlflow": ["mlflow>=3.0"],
    "trackio": ["trackio>=0.5"],
    "tpu": ["jax[tpu]>=0.10"],
    "cuda": ["jax[cuda13]>=0.10"],
    "golden": ["torch>=2.13,<2.15", "accelerate>=1.0", "sentencepiece>=0.2"],
    "bench": ["torch==2.13.0"],
    "dev": ["ruff>=0.8", "pre-commit>=3.7"],
}
setup(
    name="rlcd_jax",
    version="0.1.0",
    description="RLCD: reinforcement learning from contrastive distillation, in JAX",
    long_description=pathlib.Path(__file__).with_name("README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["rlcd_jax*", "configs*", "experiments*"]),
    package_data={
        "rlcd_jax": [
            "py.typed",
            "tasks/*.toml",
            "tasks/prompts/*.jsonl",
            "datasets/*.jsonl",
            "report/*.html",
            "human/*.html",
        ],
        "experiments": [
            "*.md",
            "docs/*",
            "docker/*",
            "figures/*.svg",
            "notebooks/*.ipynb",
        ],
    },
    entry_points={"console_scripts": ["rlcd = experiments.__main__:main"]},
    install_requires=CORE,
    extras_require=EXTRAS,
)
