"""Costs of compiled programs, which are read as they would run."""

from nfnet_jax.planning.costs import estimated_cycles, kernels
from nfnet_jax.planning.hlo import Program

ON_TPU = """\
HloModule jit_step, is_scheduled=true

%fused (p.1: f32[4]) -> f32[4] {
  %p.1 = f32[4]{0} parameter(0)
  ROOT %add.9 = f32[4]{0} add(%p.1, %p.1), backend_config={"estimated_cycles":"9"}
}

%body (s: (f32[4])) -> (f32[4]) {
  %s = (f32[4]{0}) parameter(0)
  %fusion.2 = f32[4]{0} fusion(%s), calls=%fused, \
metadata={op_name="jit(f)/while/mul"}, \
backend_config={"window_config":{"estimated_cycles":"10"}}
  ROOT %tuple = (f32[4]{0}) tuple(%fusion.2)
}

%condition (s: (f32[4])) -> pred[] {
  %s = (f32[4]{0}) parameter(0)
  ROOT %compare = pred[] compare(%s), backend_config={"estimated_cycles":"1000"}
}

ENTRY %main (x: f32[4]) -> f32[4] {
  %x = f32[4]{0:T(128)} parameter(0)
  %fusion.1 = f32[4]{0:T(128)} fusion(%x), calls=%fused, \
metadata={op_name="jit(f)/add" stack_frame_id=1}, \
backend_config={"window_config":{"estimated_cycles":"500"}}
  %copy.1 = f32[4]{0} copy(%x), backend_config={"estimated_cycles":"7"}
  %while.1 = (f32[4]{0}) while(%fusion.1), condition=%condition, body=%body, \
backend_config={"known_trip_count":{"n":"3"}}
  ROOT %gte = f32[4]{0} get-tuple-element(%while.1), index=0, \
metadata={op_name="jit(f)/add"}, backend_config={"estimated_cycles":"1"}
}
"""
ON_GPU = """\
HloModule jit_step, is_scheduled=true

%sums (p.1: f32[4,4]) -> f32[4] {
  %p.1 = f32[4,4]{1,0} parameter(0)
  %transpose.1 = f32[4,4]{1,0} transpose(%p.1), dimensions={1,0}
  ROOT %reduce.1 = f32[4]{0} reduce(%transpose.1, %p.1), dimensions={0}, to_apply=%add
}

%turned (p.2: f32[4,4]) -> f32[4,4] {
  %p.2 = f32[4,4]{1,0} parameter(0)
  ROOT %transpose.2 = f32[4,4]{1,0} transpose(%p.2), dimensions={1,0}
}

%doubled (p.3: f32[4,4]) -> f32[4,4] {
  %p.3 = f32[4,4]{1,0} parameter(0)
  ROOT %reduce_sum.3 = f32[4,4]{1,0} add(%p.3, %p.3)
}

%recorded (p.4: f32[4,4]) -> f32[4,4] {
  %p.4 = f32[4,4]{1,0} parameter(0)
  ROOT %fusion.4 = f32[4,4]{1,0} fusion(%p.4), kind=kLoop, calls=%doubled
}

ENTRY %main (x: f32[4,4]) -> f32[4] {
  %x = f32[4,4]{1,0} parameter(0)
  %bitcast = f32[16]{0} bitcast(%x)
  %fusion.2 = f32[4,4]{1,0} fusion(%x), kind=kInput, calls=%turned
  %call = f32[4,4]{1,0} call(%fusion.2), to_apply=%recorded
  %conv = (f32[4,4]{1,0}, u8[9]{0}) custom-call(%call, %x), \
custom_call_target="__cudnn$convForward"
  %copy-start = (f32[4,4]{1,0}, u32[]) copy-start(%x)
  %copy-done = f32[4,4]{1,0} copy-done(%copy-start)
  ROOT %fusion.1 = f32[4]{0} fusion(%conv), kind=kInput, calls=%sums
}
"""


def test_loops_count_as_often_as_they_run():
    found = estimated_cycles(Program(ON_TPU))
    assert found == {"add": 501, "mul": 30, "unnamed": 7}


def test_kernels_are_counted_by_kind():
    once = ("transpose", "other fusion", "cuDNN", "copy", "reduction")
    assert kernels(Program(ON_GPU)) == dict.fromkeys(once, 1)
