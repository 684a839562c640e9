"""Targets, refusals, remedies and the search for a batch, without any compiler."""

import json
import pathlib
import sys
import types

import pytest

from nfnet_jax import plan as command
from nfnet_jax.config import base_config
from nfnet_jax.planning import target as targets
from nfnet_jax.planning.costs import (
    accessed_bytes,
    estimated_cycles,
    kernels,
    library_calls,
)
from nfnet_jax.planning.hlo import Program
from nfnet_jax.planning.plan import Plan, search, valid_batch
from nfnet_jax.planning.programs import (
    Buffer,
    StepPlan,
    largest_buffers,
    read_refusal,
)
from nfnet_jax.planning.remedies import remedies
from nfnet_jax.planning.target import CHIPS, Target, parse_target
from nfnet_jax.planning.text import describe_plan
from nfnet_jax.utils.errors import UserError

DIGITS = pathlib.Path(__file__).parents[2] / "configs" / "digits.py"
V5E, H100 = Target("v5e", "2x2"), Target("h100", "8")


def step(needed=1e9, fits=True, arguments=1e8, examples=64, **values) -> StepPlan:
    return StepPlan(
        examples=examples,
        flops=10**12,
        needed=needed,
        fits=fits,
        arguments=int(arguments),
        **values,
    )


@pytest.mark.parametrize(
    ("text", "name", "shape", "is_gpu"),
    [
        ("v5e:1x1", "v5e", "1x1", False),
        ("v5e:16x16", "v5e", "16x16", False),
        ("v5p:2x2x1", "v5p", "2x2x1", False),
        ("tpu7x:4x4x4", "tpu7x", "4x4x4", False),
        ("h100:8", "h100", "8", True),
        ("b200:1", "b200", "1", True),
    ],
)
def test_targets_are_read(text, name, shape, is_gpu):
    found = parse_target(text)
    assert (found.name, found.shape, found.is_gpu) == (name, shape, is_gpu)
    assert str(found) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("v5:2x2", r"'v5:2x2', expected NAME:SHAPE with one of v4, .*mean 'v5[ep]'\?"),
        ("h10:8", r"did you mean 'h100'\?"),
        ("v5e", "expected a topology of 2 sides, such as v5e:2x2"),
        ("v5e:2x2x1", "expected a topology of 2 sides, such as v5e:2x2"),
        ("v5p:2x2", "expected a topology of 3 sides, such as v5p:2x2x1"),
        ("v5e:0x2", "expected a topology of 2 sides"),
        ("h100:0", "expected the number of GPUs, such as h100:8"),
        ("h100:2x2", "expected the number of GPUs, such as h100:8"),
        ("a100:9999", "expected the number of GPUs, such as a100:8"),
    ],
)
def test_other_targets_are_refused_with_the_nearest(text, words):
    with pytest.raises(UserError, match=words):
        parse_target(text)


def test_peaks_are_those_of_the_matrix_units_at_the_clock():
    """Two operations for each multiplier and cycle: 4 units of 128² (v5e), 8 (v4, v5p),
    4 of 256² (v6e and a core of a TPU7x)."""
    multipliers = {"v4": 8, "v5e": 4, "v5p": 8, "v6e": 16, "tpu7x": 16}
    for name, units in multipliers.items():
        target = Target(name, "2x2")
        peak = 2 * units * 128**2 * CHIPS[name].clock
        assert target.hardware.flops == pytest.approx(peak, rel=0.01)


@pytest.mark.parametrize(("target", "extra"), [(V5E, "tpu-plan"), (H100, "gpu-plan")])
def test_a_missing_compiler_is_named_with_its_extra(target, extra, monkeypatch):
    monkeypatch.setattr(targets.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=rf"pip install 'nfnet_jax\[{extra}\]'"):
        command.main(["plan", f"--config={DIGITS}", f"--target={target}"])


def test_flags_that_do_not_go_together_are_refused():
    given = ["plan", f"--config={DIGITS}"]
    with pytest.raises(UserError, match="--target and --devices exclude each other"):
        command.main([*given, "--target=h100:8", "--devices=8"])
    with pytest.raises(UserError, match="--largest_batch needs --target"):
        command.main([*given, "--largest_batch"])


PROGRAM = """HloModule jit_step, is_scheduled=true

%fused (p: f32[4]) -> f32[4] {
  %p = f32[4]{0} parameter(0)
  ROOT %n = f32[4]{0} negate(%p), backend_config={"estimated_cycles":"7000"}
}

%inner (q: (s32[], f32[8,2])) -> (s32[], f32[8,2]) {
  %q = (s32[]{:T(128)}, f32[8,2]{1,0:T(8,128)S(1)}) parameter(0)
  %x = f32[8,2]{1,0} get-tuple-element(%q), index=1
  %y = f32[8,2]{1,0} fusion(%x), kind=kLoop, calls=%fused, \
metadata={op_name="jit(step)/tanh"}, backend_config={"estimated_cycles":"10"}
}

%condition (q: (s32[], f32[8,2])) -> pred[] {
  %limit = s32[]{:T(128)} constant(5)
  %q.1 = (s32[], f32[8,2]) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%q.1), index=0
  ROOT %less = pred[] compare(%i, %limit), direction=LT
}

ENTRY %main (a: bf16[16]) -> f32[8,2] {
  %a = bf16[16]{0} parameter(0)
  %loop = (s32[], f32[8,2]{1,0}) while(%t), condition=%condition, body=%inner
  ROOT %c = f32[4]{0} custom-call(%a), custom_call_target="__cudnn$convForward", \
backend_config={"estimated_cycles":"100"}
}
"""


def test_loops_count_as_often_as_they_run_and_fusions_as_one_kernel():
    program = Program(PROGRAM)
    assert estimated_cycles(program).total() == 100 + 5 * 10
    counts = kernels(program)
    assert (counts.total(), library_calls(counts)) == (1 + 5, 1)
    assert accessed_bytes(program) == (32 + 16) + 5 * (64 + 64)
    assert largest_buffers(program)[0] == Buffer(64, "f32[8,2]", "jit(step)/tanh")
    known = PROGRAM.replace("body=%inner", 'body=%inner, "known_trip_count":{"n":"3"}')
    assert estimated_cycles(Program(known)).total() == 100 + 3 * 10


REFUSED = """RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in \
memory space hbm. Used 20.50G of 15.75G hbm. Exceeded hbm capacity by 4.75G.

  Largest program allocations in hbm:

  1. Size: 1.50G
     Operator: op_name="jit(step)/conv" source_file="x.py"
     Shape: f32[1024,256]{1,0:T(8,128)}
     Unpadded size: 1.50G
     ==========================

  2. Size: 512.0M
     Shape: bf16[7]{0}
     ==========================
"""


def test_refusals_of_a_compiler_are_read():
    needed, largest = read_refusal(REFUSED, 7)
    assert needed == 20.5 * 2**30
    assert largest == (
        Buffer(3 * 2**29, "f32[1024,256]", "jit(step)/conv"),
        Buffer(2**29, "bf16[7]", ""),
    )
    short = (
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for "
        "HLO temporaries (41.26G) exceeds available HBM (15.75G)."
    )
    assert read_refusal(short, 7) == (41.26 * 2**30 + 7, ())
    with pytest.raises(UserError, match="the compiler of the target failed: UNIMPLEM"):
        read_refusal("UNIMPLEMENTED: no such operation\nmore", 0)


def test_remedies_are_those_that_are_not_on_and_that_help():
    config = base_config()
    config.data.batch_size = 64
    tight = step(needed=3.5e9, fits=False, arguments=1e9, temporary=2_500_000_000)
    assert remedies(config, V5E, 4, tight, 2e9) == [
        "--config.train.dtype=bfloat16",
        "--config.train.remat=block",
        "--config.optim.accumulate=4",
        "--config.parallel.fsdp=True",
        "--config.data.batch_size=16",
    ]
    config.train.dtype, config.train.remat = "bfloat16", "block"
    config.parallel.fsdp, config.optim.accumulate = True, 4
    assert remedies(config, V5E, 4, tight, 2e9) == [
        "--config.optim.accumulate=16",
        "--config.data.batch_size=16",
    ]
    given_up = step(needed=3.5e9, fits=False, arguments=1e9)
    config.optim.accumulate = 1
    assert "--config.data.batch_size=8" in remedies(config, V5E, 4, given_up, 2e9)
    given_up = step(needed=2.4e9, fits=False, arguments=1e9)
    assert "--config.data.batch_size=16" in remedies(config, V5E, 4, given_up, 2e9)
    config.optim.accumulate = 4
    heavy = step(needed=3.5e9, fits=False, arguments=3e9)
    assert remedies(config, V5E, 4, heavy, 2e9) == ["more devices than 4"]
    assert remedies(config, H100, 8, heavy, 3e9)[0] == (
        "XLA_PYTHON_CLIENT_MEM_FRACTION=0.95"
    )


@pytest.mark.parametrize("start", [1, 64, 4096, 10**6])
@pytest.mark.parametrize("room", [100, 1_000, 50_000])
def test_the_largest_batch_is_found_to_an_eighth_in_few_compilations(start, room):
    sizes = []

    def compile_batch(size):
        sizes.append(size)
        needed = 50 + size
        return step(needed, needed <= room, arguments=50, examples=size)

    found = search(compile_batch, lambda most: max(most // 4 * 4, 4), start, room)
    largest = room - 50
    assert largest * 7 / 9 - 4 <= found <= largest
    assert len(sizes) <= 7 and len(set(sizes)) == len(sizes)


def test_a_search_ends_at_the_data_and_at_the_smallest_batch():
    everything = search(lambda size: step(1e8 + size), lambda n: min(n, 1000), 64, 1e12)
    assert everything == 1000
    nothing = search(
        lambda size: step(9e9, fits=False), lambda n: max(8, n // 8 * 8), 64, 1e9
    )
    assert nothing == 8


def test_valid_batches_divide_over_microbatches_devices_and_sam():
    config = base_config()
    config.optim.accumulate = 2
    assert valid_batch(config, 100, None, 8) == 96
    assert valid_batch(config, 100, 50, 8) == 48
    assert valid_batch(config, 3, None, 8) == 16
    config.optim.sam.rho, config.optim.sam.fraction = 0.05, 0.5
    assert valid_batch(config, 100, None, 8) == 96
    assert valid_batch(config, 95, None, 8) == 64


@pytest.mark.parametrize("fits", [True, False])
def test_a_plan_is_printed_and_written_and_ends_with_the_remedy(
    fits, tmp_path, capsys, monkeypatch
):
    found = Plan(
        target="v5e:2x2",
        devices=4,
        device_kind="TPU v5 lite",
        image_shape=(8, 8, 1),
        classes=10,
        source="of digits",
        batch_size=64,
        memory=CHIPS["v5e"].memory,
        state={"parameters": 312_180, "statistics": 0},
        batch=4_350,
        training=step(
            20e9,
            fits,
            cycles=1_500_000,
            seconds=1e-3,
            peak_share=0.5,
            collectives={"all-reduce": 548_000.0},
            largest=() if fits else (Buffer(2 * 10**9, "f32[9]", "jit(step)/tanh"),),
        ),
        evaluation=step() if fits else None,
        remedies=() if fits else ("--config.train.remat=block",),
        versions={"libtpu": "0.0.42.1"},
    )
    module = types.SimpleNamespace(make_plan=lambda *_: found, largest_batch=None)
    monkeypatch.setitem(sys.modules, "nfnet_jax.planning.plan", module)
    monkeypatch.setattr(targets, "prepare", lambda target: None)
    output = tmp_path / "plan.json"
    given = ["plan", f"--config={DIGITS}", "--target=v5e:2x2", f"--output={output}"]
    if fits:
        command.main(given)
    else:
        words = (
            r"training .* needs at least 20 GB of the 16\.9 GB .*; try --config.train"
        )
        with pytest.raises(UserError, match=rf"does not fit on v5e:2x2: {words}"):
            command.main(given)
    told = capsys.readouterr().out
    for words in (
        "nf_wrn_10_1 on v5e:2x2: 4 x TPU v5 lite, batch 64, images 8x8x1, of digits",
        "(libtpu 0.0.42.1), and not run",
        "1.5 million cycles, 1 ms, 64,000 images/s, 50.0 % of the peak",
        "548 kB by all-reduce",
        "16.9 GB: fits" if fits else "DOES NOT FIT",
    ):
        assert words in told
    assert ("jit(step)/tanh" in told) is not fits
    written = json.loads(output.read_text())
    assert written["fits"] is fits
    assert written["training"]["examples_per_second"] == 64_000
    assert written["state"]["parameters"] == 312_180
    assert describe_plan(base_config(), V5E, found)
