"""Package metadata, dependencies and console scripts; tool settings live in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

CORE = [
    # torch and torchvision must come from the same index in one pip call: see the Makefile.
    "torch>=2.6",
    "torchvision",
    "insightface",
    "opencv-python-headless>=4.10",
    "faiss-cpu",
    "scikit-learn",
    "albumentations",
]
BESIDE = [
    "aiohttp>=3.11",
    "av",
    "cryptography",
    "jinja2",
    "matplotlib",
    "numpy>=2",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "openvino",
    "pillow",
    "platformdirs",
    "pyarrow",
    "pydantic>=2",
    "pyyaml",
    "rich",
    "safetensors",
    "scipy>=1.12",
    "tensorboard",
]
DEV = [
    "hypothesis",
    "import-linter",
    "mypy",
    "pytest",
    "pytest-timeout",
    "pytest-xdist",
    "qdrant-client",
    "qdrant-edge-py",
    "ruff",
    "timm",
    "types-PyYAML",
]

setup(
    name="facerec",
    version="0.1.0",
    description="Face recognition for surveillance: clean a crawl, train, watch, evaluate.",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    # An explicit "." makes editable installs write a plain path file that type checkers follow.
    package_dir={"": "."},
    packages=find_packages(
        include=["facerec", "facerec.*", "data_tools", "data_tools.*", "eval", "eval.*"]
    ),
    package_data={
        "facerec": ["py.typed", "templates/*.html"],
        "data_tools": ["py.typed"],
        "eval": ["py.typed"],
    },
    install_requires=CORE + BESIDE,
    extras_require={
        "dev": DEV,
        "timm": ["timm"],
        "qdrant": ["qdrant-client"],
        "ray": ["ray[default]"],
        "cleanlab": ["cleanlab"],
    },
    entry_points={
        "console_scripts": [
            "facerec = facerec.cli.main:main",
            "facerec-clean = facerec.cli.clean:main",
            "facerec-train = facerec.cli.train:main",
            "facerec-eval = facerec.cli.evaluate:main",
            "facerec-gallery = facerec.cli.gallery:main",
        ]
    },
)
