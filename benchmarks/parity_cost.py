"""What the parity harness costs on a large network, beside plain forward passes of the runtimes that it compares.

    python benchmarks/parity_cost.py [--network resnet152_v1] [--batch-size 8] [--size 224] [--max-memory 1536]

Every row is a process of its own. A *plain pass* is a run of the exported network by one runtime, as its users run it:
its time is the median of warm passes, its memory the peak of a process that loads the network and runs it once. The
*start-up* is what the harness takes on a network of one layer, and what both runtimes take to load the network.
Bounds (docs/parity.md, "Large networks"): memory 1.5 times the plain pass plus --max-memory; time 5 plain passes of
each runtime plus the start-up. Exit code 4 if one does not hold.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from vqvae_gluon.errors import DIVERGED, DONE
from vqvae_gluon.runtimes.cpp import find_binary

_WARM_PASSES = 3
_MIB = 1 << 20

# Loads an export in Gluon, runs it, and tells: seconds to load it, seconds of each warm pass.
_PLAIN = """
import sys, time, warnings
import numpy as np
warnings.simplefilter("ignore")
from vqvae_gluon.compat import mx
prefix, data, passes = sys.argv[1], sys.argv[2], int(sys.argv[3])
images = mx.nd.array(np.load(data))
start = time.perf_counter()
net = mx.gluon.SymbolBlock.imports(prefix + "-symbol.json", ["data"], prefix + "-0000.params")
net.hybridize(static_alloc=True, static_shape=True)
net(images).wait_to_read()
times = [time.perf_counter() - start]
for _ in range(passes):
    start = time.perf_counter()
    net(images).wait_to_read()
    times.append(time.perf_counter() - start)
print(*times)
"""


def run(command: list[str]) -> tuple[float, float, str]:
    """Seconds, peak memory in MiB of the process and its children, and standard output of a command."""
    code = (
        "import json, resource, subprocess, sys, time; start = time.perf_counter();"
        "result = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, text=True);"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024;"
        "print(json.dumps([time.perf_counter() - start, used, result.stdout, result.returncode]))"
    )
    output = subprocess.run([sys.executable, "-c", code, *command], check=True, capture_output=True, text=True).stdout
    seconds, memory, text, status = json.loads(output)
    if status != DONE:
        raise SystemExit(f"{command[0]}: ended with status {status}: {text}")
    return seconds, memory, text


def plain_gluon(files: Path, data: Path) -> dict[str, Any]:
    """The network in Gluon: load, and a warm pass."""
    arguments = [sys.executable, "-c", _PLAIN, str(files), str(data)]
    first, *warm = map(float, run([*arguments, str(_WARM_PASSES)])[2].split())
    pass_seconds = statistics.median(warm)
    return {"pass": pass_seconds, "load": first - pass_seconds, "memory": run([*arguments, "0"])[1]}


def plain_cpp(files: Path, data: Path, directory: Path) -> dict[str, Any]:
    """The same by the C++ binary. It runs a network once; what loading takes is measured on one image."""
    arguments = [str(find_binary()), "--symbol", f"{files}-symbol.json", "--params", f"{files}-0000.params"]
    arguments += ["--taps", "none", "--trace", str(directory / "trace"), "--input"]
    one = directory / "one.npy"
    images = np.load(data)
    np.save(one, images[:1])
    alone = statistics.median(run([*arguments, f"data={one}"])[0] for _ in range(_WARM_PASSES))
    runs = [run([*arguments, f"data={data}"]) for _ in range(_WARM_PASSES)]
    whole = statistics.median(seconds for seconds, _, _ in runs)
    pass_seconds = (whole - alone) * len(images) / max(1, len(images) - 1)
    return {"pass": pass_seconds, "load": whole - pass_seconds, "memory": max(memory for _, memory, _ in runs)}


def harness(files: Path, shape: tuple[int, ...], candidate: str, max_memory: int) -> dict[str, Any]:
    """The comparison: seconds, peak memory, verdict."""
    text = ",".join(map(str, shape))
    command = [sys.executable, "-m", "vqvae_gluon", "parity", "--json", "--candidate", candidate]
    command += ["--symbol", f"{files}-symbol.json", "--params", f"{files}-0000.params", "--input", f"data:{text}"]
    seconds, memory, output = run([*command, "--max-memory", str(max_memory)])
    report = json.loads(output)
    return {"seconds": seconds, "memory": memory, "verdict": report["verdict"], "nodes": report["nodes_compared"]}


def export(name: str, shape: tuple[int, ...], prefix: Path) -> None:
    """Write a network of the model zoo with random weights, or a layer for ``one layer``."""
    from vqvae_gluon.compat import mx

    mx.random.seed(0)
    net = mx.gluon.nn.Dense(1) if name == "one layer" else mx.gluon.model_zoo.vision.get_model(name)
    net.initialize(mx.init.MSRAPrelu())
    net.hybridize()
    net(mx.nd.zeros(shape))
    net.export(str(prefix))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet152_v1", help="of MXNet's model zoo (default: resnet152_v1)")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--max-memory", type=int, default=1536, help="MiB (default: 1536)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args()
    shape = (options.batch_size, 3, options.size, options.size)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for network, prefix, extents in ((options.network, "net", shape), ("one layer", "one", (1, 3, 2, 2))):
            if os.fork() == 0:  # MXNet's memory must not count below.
                export(network, extents, directory / prefix)
                os._exit(0)
            os.wait()
        data = directory / "data.npy"
        np.save(data, np.random.default_rng(0).normal(size=shape).astype(np.float32))
        gluon, cpp = plain_gluon(directory / "net", data), plain_cpp(directory / "net", data, directory)
        empty = harness(directory / "one", (1, 3, 2, 2), "cpp", options.max_memory)
        found = harness(directory / "net", shape, "cpp", options.max_memory)
    start_up = empty["seconds"] + gluon["load"] + cpp["load"]
    limits = {
        "memory": 1.5 * max(gluon["memory"], cpp["memory"]) + options.max_memory,
        "seconds": 5 * (gluon["pass"] + cpp["pass"]) + start_up,
    }
    figures = {"gluon": gluon, "cpp": cpp, "start_up": start_up, "harness": found, "limits": limits}
    kept = all(found[key] <= limits[key] for key in limits)
    machine = {"machine": platform.machine(), "processors": os.cpu_count()}
    if options.json:
        print(json.dumps({**machine, **figures, "kept": kept}, indent=2))
    else:
        extents = f"batch {options.batch_size}, {options.size}x{options.size}"
        print(f"{options.network}, {extents}, {os.cpu_count()} processors\n")
        print("| what | seconds | peak memory, MiB |\n| --- | --- | --- |")
        print(f"| plain pass, gluon | {gluon['pass']:.2f} | {gluon['memory']:.0f} |")
        print(f"| plain pass, cpp | {cpp['pass']:.2f} | {cpp['memory']:.0f} |")
        print(f"| start-up | {start_up:.2f} | {empty['memory']:.0f} |")
        print(f"| parity, cpp against gluon ({found['nodes']} nodes, {found['verdict']}) |", end="")
        print(f" {found['seconds']:.2f} | {found['memory']:.0f} |")
        print(f"| bound | {limits['seconds']:.2f} | {limits['memory']:.0f} |")
    return DONE if kept and found["verdict"] == "agree" else DIVERGED


if __name__ == "__main__":
    sys.exit(main())
