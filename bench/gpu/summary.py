"""Figures that stand beside others of the same run, and the text that is printed at the end."""

GB = 1e9


def ceilings(parts):
    """The better of what the library's own check and PyTorch have measured, with who has."""
    found = {}
    for name, part in parts.items():
        for key, value in (part.get("ceilings") or {}).items():
            if value > found.get(key, {"value": 0})["value"]:
                found[key] = {"value": value, "by": name}
    return found


def derive(result):
    """Adds shares of ceilings, speed-ups beside predicted ones, and the PyTorch loop's time beside ours."""
    parts = result["parts"]
    result["ceilings"] = ceilings(parts)
    read, compute = (
        result["ceilings"].get(key, {}).get("value") for key in ("readBytesPerSecond", "matmulF16PerSecond")
    )
    for name, part in parts.items():
        if not name.startswith("throughput"):
            continue
        runs = part.get("runs", [])
        torch = parts.get(f"torch-{name[11:]}", {})
        peers = {(one["batch"], one["prompt"]): one for one in torch.get("runs", [])}
        captured = {(one["batch"], one["prompt"]): one["stepSeconds"] for one in torch.get("captured", [])}
        for one in runs:
            total = sum(one["stepBytes"].values())
            one["prefillFlopsPerSecond"] = one["prefillFlops"] / one["prefillSeconds"]
            one["prefillShare"] = one["prefillFlopsPerSecond"] / compute if compute else None
            if not one["stepSeconds"]:
                continue
            one["bytesPerSecond"] = total / one["stepSeconds"]
            one["bandwidthShare"] = one["bytesPerSecond"] / read if read else None
            full = base(runs, one)
            if full and full is not one:
                one["faster"] = full["stepSeconds"] / one["stepSeconds"]
                one["predicted"] = sum(full["stepBytes"].values()) / total
                one["fasterOverPredicted"] = one["faster"] / one["predicted"]
            if (one["batch"], one["prompt"]) in captured:
                one["torchCapturedOverOurs"] = captured[one["batch"], one["prompt"]] / one["stepSeconds"]
            peer = peers.get((one["batch"], one["prompt"]))
            if peer:
                one["torchOverOurs"] = {
                    "step": peer["stepSeconds"] / one["stepSeconds"],
                    "prompts": peer["allPromptsSeconds"] / one["prefillSeconds"],
                }


def base(runs, one):
    """The run with everything kept that ran as long."""
    same = [other for other in runs if all(other[key] == one[key] for key in ("batch", "prompt", "tokens", "whole"))]
    return next((other for other in same if other["keep"] == 1 and other["stepSeconds"]), None)


def number(value, form="{:.3g}"):
    return "-" if value is None else form.format(value)


def percent(value):
    return "-" if value is None else f"{100 * value:.0f} %"


def table(head, rows):
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    return lines + [f"| {' | '.join(row)} |" for row in rows]


def lines(result):
    parts, library = result["parts"], result["library"]
    machine = result["machine"] or {}
    gpu = machine.get("gpu") or {}
    version, size = library["version"], library["bytes"]
    found = ["# Check on a GPU" if result["options"]["device"] != "cpu" else "# Dry run: the CPU plays both sides", ""]
    found.append(
        f"{gpu.get('name') or 'no GPU'}, driver {gpu.get('driver_version') or 'none'}; {machine.get('processor')}, "
        f"{machine.get('cores')} cores; Python {machine.get('python')}, PyTorch {parts.get('machine', {}).get('torch')}; "
        f"prefixkv {version}, {number(size and size / (1 << 20), '{:.1f}')} MiB; {result['started']}, {result['seconds']:.0f} s."
    )
    for key, text, unit in (
        ("readBytesPerSecond", "reading", "GB/s"),
        ("matmulF16PerSecond", "f16 products", "TFLOP/s"),
    ):
        one = result["ceilings"].get(key)
        scale = GB if unit == "GB/s" else 1e12
        found.append(
            f"Ceiling, {text}: {number(one and one['value'] / scale)} {unit}{' by ' + one['by'] if one else ' (not measured)'}."
        )
    found += ["", "## Parts", ""]
    rows = [[name, part["status"], f"{part['seconds']:.0f} s", part.get("reason", "")] for name, part in parts.items()]
    found += table(["part", "status", "took", "why"], rows)
    for part in (equal, memory, products, speed, traces, sanitizer, missing):
        found += part(result)
    return found


def equal(result):
    part, found = result["parts"].get("generations", {}), []
    for weights, tally in part.get("tally", {}).items():
        found.append(
            f"- {weights}: {tally['cases']} cases, "
            f"{tally['strict']} the same within {part['tolerance'][weights]['strict']} nats; "
            f"{tally['sameTokens']} have the same tokens, {tally['sameKept']} the same entries "
            f"({100 * tally['keptDifferentMean']:.3f} % of all positions differ)"
        )
    if "batch" in part:
        found.append(
            f"- requests at once: {part['batch']['same']} of {part['batch']['requests']} texts are those of single ones"
        )
    for name in ("torch-7b", "torch-13b"):
        probe = result["parts"].get(name, {}).get("probe")
        if probe:
            found.append(
                f"- {name}: log-probabilities of {probe['tokens']} tokens "
                f"{number(probe['logprobsApart'], '{:.4f}')} from PyTorch's in f32 at most"
            )
    return ["", "## CPU = device", "", *found] if found else []


def memory(result):
    part = result["parts"].get("memory", {})
    if not part.get("runs"):
        return []
    rows = [
        [
            run["cache"],
            *(
                number(run[key] and run[key] / (1 << 20), "{:.0f}")
                for key in ("full", "resident", "grown", "mostGrown", "afterwards")
            ),
            pool_of(run),
        ]
        for run in part["runs"]
    ]
    judged = "" if part["judged"] else "; recorded, not judged"
    head = ["cache, MiB", "full", "resident", "counted while decoding", "at most", "afterwards", "pool: used of reserved"]
    return ["", f"## Memory, counted by {part['counter']}{judged}", "", *table(head, rows)]


def pool_of(run):
    """MiB in use of the MiB that the pool holds from the device, once a request has ended: the rest is kept, or cut up."""
    pool = run.get("pool")
    return f"{pool['used'] / (1 << 20):.0f} of {pool['reserved'] / (1 << 20):.0f}" if pool else "-"


def products(result):
    part, read = result["parts"].get("products", {}), result["ceilings"].get("readBytesPerSecond", {}).get("value")
    by_shape = {}
    for one in part.get("products", []):
        by_shape.setdefault((one["product"], one["outputs"], one["inputs"]), {})[one["rows"]] = one["bytesPerSecond"]
    if not by_shape:
        return []
    batches = sorted({rows for found in by_shape.values() for rows in found})
    rows = [
        [name, f"{outputs}x{inputs}"]
        + [
            f"{number(found.get(n) and found[n] / GB, '{:.0f}')} ({percent(found[n] / read if read and n in found else None)})"
            for n in batches
        ]
        for (name, outputs, inputs), found in by_shape.items()
    ]
    head = ["product", "weights", *(f"{n} rows, GB/s (of read)" for n in batches)]
    return ["", "## Products by cuBLAS, bytes of weights", "", *table(head, rows)]


def traces(result):
    found = []
    for name, part in result["parts"].items():
        for one in part.get("traces", []):
            busy = one["busyUs"] / one["spanUs"] if one["spanUs"] else None
            found += ["", f"## {name}: batch {one['batch']}, keep {one['keep'] or 'plain'}, {one['tokens']} tokens each", ""]
            found.append(
                f"{one['events']} kernels and copies in {one['spanUs'] / 1000:.1f} ms, busy {percent(busy)}, "
                f"the longest gap {one['longestGapUs']:.0f} us."
            )
            rows = [
                [row["kind"], row["name"], str(row["count"]), f"{row['us']:.0f}", percent(row["us"] / one["spanUs"])]
                for row in one["names"][:10]
            ]
            found += ["", *table(["what", "name", "times", "us", "of all"], rows)]
    return found


def sanitizer(result):
    tools = result["parts"].get("sanitizer", {}).get("tools", [])
    rows = [[one["tool"], "-" if one["errors"] is None else str(one["errors"]), str(one["status"])] for one in tools]
    return ["", "## compute-sanitizer", "", *table(["tool", "errors", "status"], rows)] if rows else []


def speed(result):
    found = []
    for name, part in result["parts"].items():
        if name.startswith("throughput") and part.get("runs"):
            rows = [row(run) for run in part["runs"]]
            head = [
                "batch",
                "tokens",
                "keep",
                "prompts, tok/s",
                "of f16 products",
                "decode, tok/s",
                "a step",
                "GB/s (of read)",
            ]
            head += ["faster (predicted)", "PyTorch's step / ours (captured)", "cache MiB", "whole, tok/s"]
            found += [
                "",
                f"## {name}: decode of the whole batch, {part['load']['info']['device']}, f16",
                "",
                *table(head, rows),
            ]
    if found:
        found += [
            "",
            "Rates of decoding are of steps in which all requests generate. *predicted*: the ratio of the bytes that a step",
            "reads, weights and cache. *captured*: PyTorch's step as a CUDA graph, without the CPU's part in it. A length with",
            "`..` ran to the number of steps behind it instead of to its end.",
        ]
    return found


def row(run):
    step, faster = run["stepSeconds"], run.get("faster")
    length = (
        f"{run['prompt']}+{run['tokens']}"
        if run["whole"]
        else f"{run['prompt']}+{run['tokens']}..{run['steadySteps']:.0f}"
    )
    beside = run.get("torchOverOurs", {}).get("step")
    return [
        str(run["batch"]),
        length,
        "plain" if run["keep"] is None else str(run["keep"]),
        number(run["prefillTokensPerSecond"], "{:.0f}"),
        percent(run.get("prefillShare")),
        number(run["decodeTokensPerSecond"], "{:.0f}"),
        f"{1000 * step:.2f} ms" if step else "never all at once",
        f"{number(run.get('bytesPerSecond') and run['bytesPerSecond'] / GB, '{:.0f}')} ({percent(run.get('bandwidthShare'))})",
        f"{faster:.2f} ({run['predicted']:.2f})" if faster else "-",
        f"{number(beside, '{:.2f}')} ({number(run.get('torchCapturedOverOurs'), '{:.2f}')})" if beside else "-",
        number(run["memory"]["resident"] / (1 << 20), "{:.0f}"),
        number(run["wholeTokensPerSecond"], "{:.0f}"),
    ]


def missing(result):
    found = []
    for name, part in result["parts"].items():
        if part["status"] != "ok":
            found.append(f"- {name} {part['status']}: {part.get('reason', '')}")
        found += [f"- {name} failed: {reason}" for reason in part.get("failures", [])[:20]]
        found += [f"- {name} not run: {one['what']}: {one['reason']}" for one in part.get("notRun", [])]
    return ["", "## Failed and not run", "", *(found or ["Nothing."])]
