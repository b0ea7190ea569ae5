"""The compiled kernels; everything else about the package is in pyproject.toml."""

from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

KERNELS = Path("specutils_blase", "kernels")
# As fast as the mathematics allows, but a NaN stays a NaN (no -ffinite-math-only), and nothing asks for the processor
# of the building machine: avx2.c and avx512.c are the same code for those that have it, chosen at import.
GCC = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math", "-freciprocal-math"]
GCC += ["-ffp-contract=fast"]


class BuildKernels(build_ext):
    """Leaves the module in the source tree too, so that what is started there finds it."""

    def build_extensions(self):
        """Compile with the options of the compiler at hand."""
        for extension in self.extensions:
            extension.extra_compile_args = ["/O2"] if self.compiler.compiler_type == "msvc" else GCC
        super().build_extensions()
        self.copy_extensions_to_source()


setup(
    cmdclass={"build_ext": BuildKernels},
    ext_modules=[
        Extension(
            "specutils_blase._kernels",
            sources=sorted(str(path) for path in KERNELS.glob("*.c")),
            depends=sorted(str(path) for path in KERNELS.glob("*.h")),
            py_limited_api=True,
        )
    ],
)
