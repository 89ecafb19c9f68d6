"""What quantizing a decoder to 4 bits takes on several machines: time, memory, bytes moved.

    python3 docs/examples/estimate.py 8b 70b --machines 1,8,64

The costs of one operation are measured ones (below, with the commands), shapes are those of Llama 3. The schedule is
simulated: every task begins when what it needs is there and a machine is free, the longest first. A file system's answers,
starting processes and waiting in a queue are left out: take it as the least.
"""

import argparse
import heapq

# Seconds of one core for a multiply-add of moments and of a forward run, and by K^3 and K^2 M for a solved layer of K inputs
# and M outputs, on an EPYC: those by which `onnxquant --dry-run` estimates. Solvers are fitted to the table of `cargo xtask
# bench solver --large`; the others are rougher.
MOMENT = 1.0e-10
FORWARD = 0.5e-10
SOLVER_CUBE, SOLVER_SQUARE = 2.0e-10, 4.0e-10
# What pinning saturated weights takes in comparison with feedback alone, at 4 bits.
PINNING = 1.5
# Samples are summed in so many parts, whatever the number of machines.
PARTS = 16
# The float network, and the quantized one beside it.
NETWORKS = 2

DECODERS = {
    "1b": {"blocks": 22, "hidden": 2048, "inner": 5632, "cache": 256, "words": 32000},
    "8b": {"blocks": 32, "hidden": 4096, "inner": 14336, "cache": 1024, "words": 128256},
    "70b": {"blocks": 80, "hidden": 8192, "inner": 28672, "cache": 1024, "words": 128256},
}


def stages(decoder):
    """The stages of a block: inputs, and outputs of the layers that read the same input."""
    hidden, inner, cache = decoder["hidden"], decoder["inner"], decoder["cache"]
    return [(hidden, [hidden, cache, cache]), (hidden, [hidden]), (hidden, [inner, inner]), (inner, [hidden])]


def solving(inputs, outputs):
    """Core seconds for the codes of one layer."""
    return PINNING * (SOLVER_CUBE * inputs**3 + SOLVER_SQUARE * inputs**2 * outputs)


def calibrating(inputs, outputs, tokens, networks):
    """Core seconds for running so many tokens through a stage, and for their moments."""
    run = networks * FORWARD * tokens * inputs * sum(outputs)
    return run + networks * MOMENT * tokens * inputs**2


def moment_bytes(inputs, networks):
    """Bytes of the moments of one input: a triangle, and beside the quantized network a square."""
    triangle = 8 * inputs * (inputs + 1) // 2
    return triangle + (8 * inputs**2 if networks > 1 else 0)


def last_end(tasks, machines):
    """When the last of tasks ends, the longest begun first, each on a machine by itself."""
    free = [0.0] * machines
    for seconds in sorted(tasks, reverse=True):
        heapq.heappush(free, heapq.heappop(free) + seconds)
    return max(free)


def parts(core_seconds, moved, machines, cores, rate):
    """Seconds until all parts of the samples went through a stage and their sums are in the folder."""
    each = core_seconds / PARTS / cores
    return last_end([each] * PARTS, machines) + moved / rate


def simulate(decoder, machines, args, one_pass):
    """Seconds, bytes that went to and from the folder, and core seconds."""
    networks = 1 if one_pass else NETWORKS
    tokens, rate = args.samples * args.length, args.gbit * 1e9 / 8
    # One machine keeps moments in memory.
    shared = machines > 1
    seconds = moved = work = 0.0
    ready = []
    for inputs, outputs in stages(decoder) * decoder["blocks"]:
        calibrated = calibrating(inputs, outputs, tokens, networks)
        solved = [solving(inputs, m) for m in outputs]
        written = PARTS * moment_bytes(inputs, networks) if shared else 0
        read = written * min(machines, len(outputs))
        readers = 1 if one_pass else 1 + min(machines, PARTS)
        codes = readers * inputs * sum(outputs) // 2 if shared else 0
        # Each machine has a line of its own to the folder; the folder is as fast as all of them.
        seconds += parts(calibrated, written / min(machines, PARTS), machines, args.cores, rate)
        if one_pass:
            ready += [s / args.cores + written / rate for s in solved]
        else:
            seconds += last_end([s / args.cores + written / rate for s in solved], machines)
        moved += written + read + codes
        work += calibrated + sum(solved)
    return seconds + (last_end(ready, machines) if one_pass else 0.0), moved, work


def memory(decoder):
    """Bytes that a process has at its peak beside the mapped model: the widest stage, and what solves its layer."""
    widest = max(inputs for inputs, _ in stages(decoder))
    return 2 * 16 * widest**2 + 24 * widest**2


def weights(decoder):
    block = sum(inputs * sum(outputs) for inputs, outputs in stages(decoder))
    return decoder["blocks"] * block + decoder["hidden"] * decoder["words"]


def hours(seconds):
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("decoders", nargs="+", choices=sorted(DECODERS))
    parser.add_argument("--machines", default="1,8,64", help="numbers of machines")
    parser.add_argument("--cores", type=int, default=16, help="cores of each")
    parser.add_argument("--gbit", type=float, default=10.0, help="gigabits a second between a machine and the folder")
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--length", type=int, default=512, help="tokens of a sample")
    args = parser.parse_args()
    print("| decoder | machines | stage by stage | `--one-pass` | core hours | moved | memory of each |")
    print("|---|---|---|---|---|---|---|")
    for name in args.decoders:
        decoder = DECODERS[name]
        for machines in map(int, args.machines.split(",")):
            slow, moved, work = simulate(decoder, machines, args, one_pass=False)
            fast, _, _ = simulate(decoder, machines, args, one_pass=True)
            cells = [
                f"{weights(decoder) / 1e9:.1f} B",
                str(machines),
                hours(slow),
                hours(fast),
                f"{work / 3600:.0f}",
                f"{moved / 1e9:.0f} GB",
                f"{memory(decoder) / 1e9:.0f} GB",
            ]
            print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
