"""The choice of sizes for a machine, and the memory of a machine from its text files."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lcp.chat.memory_fit import refused
from lcp.machine import Gpu, Machine, linux, mac_free, machine
from lcp.modelfile.context_and_gpu_layers import (
    RUNTIME,
    SizeChoice,
    choose_sizes,
    largest_context,
    smaller_quant,
    verdict,
)
from lcp.modelfile.memory_needs import IMAGINED, ContextNeeds, DeviceNeeds, MemoryNeeds

MIB, GIB = 1 << 20, 1 << 30
ORDER = {"no": 0, "pages": 1, "fits": 2}


class Model:
    """A model with equal layers; `asked` are the questions to it."""

    layers = 28

    def __init__(
        self, weights=4 * GIB, per_token=128 << 10, compute=300 * MIB, repacked=0, card=False
    ):
        self.weights, self.per_token, self.compute = weights, per_token, compute
        self.repacked, self.card = repacked, card
        self.asked = []

    def needs(self, rows, layers=-1, repack=True):
        self.asked.append((list(rows), layers))
        there = (
            0 if not self.card else self.layers + 1 if layers < 0 else min(layers, self.layers + 1)
        )
        moved = self.weights * there // (self.layers + 1)
        made = []
        for context, kv_type in rows:
            size = {"f16": 64, "q8_0": 34, "q4_0": 18}[kv_type]
            context = -(-context // 256) * 256
            kv = context * self.per_token * size // 64
            kv_there = kv * max(0, there - 1) // self.layers
            devices = [DeviceNeeds("CPU", self.weights - moved, kv - kv_there, self.compute)]
            if self.card:
                devices.append(DeviceNeeds(IMAGINED, moved, kv_there, self.compute))
            total = sum(d.total for d in devices) + MIB
            made.append(
                ContextNeeds(context, kv_type, kv, self.compute, MIB, total, tuple(devices))
            )
        file = max(0, self.weights - moved - self.repacked)
        return MemoryNeeds("exact", file, min(self.repacked, self.weights), moved, tuple(made), {})


def pick(model, machine, trained=131072, **wishes):
    return choose_sizes(model, machine, trained=trained, layers=model.layers, **wishes)


# verdicts

sizes = st.integers(0, 1 << 40)


@st.composite
def memories(draw):
    cpu = DeviceNeeds("CPU", draw(sizes), draw(sizes), draw(sizes))
    gpu = DeviceNeeds(IMAGINED, draw(sizes), draw(sizes), draw(sizes))
    row = ContextNeeds(4096, "f16", 0, 0, draw(st.integers(0, GIB)), 0, (cpu, gpu))
    return MemoryNeeds("exact", cpu.weights, draw(sizes), gpu.weights, (row,), {})


@pytest.mark.slow
@given(memories(), *[sizes] * 6, st.booleans())
def test_more_memory_is_never_worse(memory, free, more, card, larger, room, wider, shared):
    small = Machine(free, free, (Gpu(IMAGINED, card, card, shared),), room)
    large = Machine(
        free + more,
        free + more,
        (Gpu(IMAGINED, card + larger, card + larger, shared),),
        room + wider,
    )
    row = memory.rows[0]
    assert ORDER[verdict(memory, row, small)] <= ORDER[verdict(memory, row, large)]


@given(memories(), st.integers(-GIB, GIB))
def test_only_memory_that_cannot_be_mapped_leads_to_refusal(memory, spare):
    """Without a GPU: "no" if anonymous memory does not fit, "pages" if the file does not."""
    row = replace(memory.rows[0], devices=memory.rows[0].devices[:1])
    cpu = row.devices[0]
    held = memory.weights_anon + cpu.kv + cpu.compute + row.output + RUNTIME
    free = max(0, held + spare)
    said = verdict(memory, row, Machine(free, free))
    assert (said == "no") == (held > free)
    if said == "fits":
        assert held + memory.weights_file <= free
    assert verdict(memory, row, Machine(None, None)) == "fits"


def test_a_tenth_of_the_available_memory_is_kept_in_reserve():
    model = Model(compute=0, per_token=0)
    memory = model.needs([(4096, "f16")], 0)
    needed = 4 * GIB + MIB + RUNTIME
    for free, said in [
        (needed, "pages"),
        (needed * 10 // 9 - MIB, "pages"),
        (needed * 10 // 9 + MIB, "fits"),
    ]:
        assert verdict(memory, memory.rows[0], Machine(free, free)) == said


def test_a_limit_on_address_space_counts_mapped_files():
    model = Model()
    memory = model.needs([(4096, "f16")], 0)
    few = Machine(64 * GIB, 64 * GIB, mappable=4 * GIB)
    assert verdict(memory, memory.rows[0], few) == "no"
    assert verdict(memory, memory.rows[0], replace(few, mappable=8 * GIB)) == "fits"


def test_a_gpu_with_shared_memory_uses_the_computers_memory():
    model = Model(card=True)
    memory = model.needs([(8192, "f16")], -1)
    card = Gpu(IMAGINED, 16 * GIB, 16 * GIB)
    own, shared = (Machine(2 * GIB, 2 * GIB, (replace(card, shared=s),)) for s in (False, True))
    assert verdict(memory, memory.rows[0], own) == "fits"
    assert verdict(memory, memory.rows[0], shared) == "pages"


# the largest


@given(st.integers(1, 1 << 20), st.integers(0, 1 << 30), st.integers(0, 1 << 34), st.data())
def test_the_largest_context_fits_and_the_next_does_not(per_token, base, room, data):
    most = data.draw(st.integers(1, 1 << 17))
    least = data.draw(st.sampled_from([256, 2048]))

    def need(context):
        return base + -(-context // 256) * 256 * per_token

    found = largest_context(lambda sizes: [need(n) <= room for n in sizes], most, least)
    assert found == most or found % 256 == 0
    if found:
        assert need(found) <= room
        assert found == most or found + 256 >= most or need(found + 256) > room
    else:
        assert need(min(least, most)) > room or least > most


def test_the_largest_context_is_found_with_few_questions():
    asked = []

    def fits(sizes):
        asked.append(sizes)
        return [n <= 50_000 for n in sizes]

    assert largest_context(fits, 131072) == 50_000 // 256 * 256
    assert len(asked) <= 5


# choosing


def test_no_notice_if_everything_fits():
    model = Model()
    choice = pick(model, Machine(64 * GIB, 64 * GIB), trained=8192)
    assert choice == SizeChoice(8192, -1, "f16")


@pytest.mark.parametrize(
    "free, trained, context",
    [
        (64 * GIB, 131072, 32768),  # 4 GiB of KV are under a quarter
        (64 * GIB, 16384, 16384),
        (64 * GIB, 4096, 4096),
        (64 * GIB, 0, 8192),
        (64 * GIB, 20000, 20000),
        (16 * GIB, 131072, 16384),  # 32768 would take 4.3 GiB
        (8 * GIB, 131072, 8192),
        (GIB, 131072, 4352),  # RUNTIME + 300 MiB + output leave room for 573 MiB of KV
    ],
)
def test_auto_context(free, trained, context):
    choice = pick(Model(), Machine(free, free), trained)
    assert choice.ctx_size == context
    assert not choice.refusal
    told = [notice for notice in choice.notices if "The context has" in notice]
    if context < min(trained or 8192, 32768):
        assert f"{context:,} of {trained:,} tokens" in told[0]
    else:
        assert not told


@given(st.integers(0, 64 << 10), st.integers(1 << 10, 1 << 20), st.integers(0, 200_000))
def test_the_chosen_sizes_run_or_are_refused(free_mib, per_token, trained):
    model = Model(per_token=per_token)
    machine = Machine(free_mib * MIB, free_mib * MIB)
    choice = pick(model, machine, trained)
    memory = model.needs([(choice.ctx_size, "f16")], choice.n_gpu_layers)
    assert bool(choice.refusal) == (verdict(memory, memory.rows[0], machine) == "no")
    assert choice.ctx_size <= max(trained or 8192, 1) or choice.ctx_size == 8192
    if choice.refusal:
        smallest = model.needs([(min(2048, trained or 2048), "f16")], -1)
        assert verdict(smallest, smallest.rows[0], machine) == "no"


def test_weights_that_page_lead_to_a_notice():
    choice = pick(Model(), Machine(3 * GIB, 8 * GIB), 8192, bits_per_weight=8.5)
    assert not choice.refusal
    notice = next(n for n in choice.notices if "disk" in n)
    assert all(fact in notice for fact in ("4.29 GB", "1.35 GB", "IQ2_XS"))


def test_a_refusal_names_what_would_fit():
    choice = pick(Model(), Machine(2 * GIB, 8 * GIB), ctx_size=16384)
    refusal = choice.refusal
    assert (refusal.context, refusal.place, refusal.room) == (16384, "memory", 2 * GIB)
    assert (refusal.smaller_context, refusal.smaller_kv_type) == (12544, "q8_0")
    assert refused(refusal).endswith("-c 12544 or --kv-type q8_0.")
    assert choice.ctx_size == 16384


def test_contexts_that_llama_cpp_refuses():
    """A context whose tables alone are too large is refused here; otherwise, loading says why."""

    class Refusing(Model):
        def __init__(self, why):
            super().__init__()
            self.why = why

        def needs(self, rows, layers=-1, repack=True):
            made = super().needs(rows, layers)
            kept = tuple(row for row in made.rows if row.context <= 100_000)
            over = {wish: self.why for wish in rows if wish[0] > 100_000}
            return replace(made, rows=kept, refused=over)

    def refuse(why):
        return pick(Refusing(why), Machine(64 * GIB, 64 * GIB), 8192, ctx_size=200_000).refusal

    refusal = refuse("failed to initialize the context: std::bad_alloc")
    assert (refusal.context, refusal.place) == (200_000, "")
    assert refused(refusal).endswith("-c auto.")
    assert refuse("requires flash_attn") is None


def test_weights_that_are_copied_cannot_page():
    model = Model(repacked=4 * GIB)
    choice = pick(model, Machine(9 * GIB // 2, 8 * GIB), bits_per_weight=4.89)
    assert choice.refusal.smaller_quant == "IQ4_XS"
    assert not pick(Model(), Machine(9 * GIB // 2, 8 * GIB)).refusal
    tiny = pick(model, Machine(GIB // 4, GIB))
    assert refused(tiny.refusal).endswith("a smaller model.")


def test_a_smaller_quant_is_suggested_for_a_limit_on_all_memory():
    machine = Machine(32 * GIB, 32 * GIB, mappable=4 * GIB)
    choice = pick(Model(), machine, bits_per_weight=4.89)
    assert (choice.refusal.place, choice.refusal.room) == ("address space", 4 * GIB)
    assert choice.refusal.smaller_quant == "Q3_K_M"


def test_layers_that_do_not_fit_stay_on_the_cpu():
    model = Model(card=True)
    machine = Machine(32 * GIB, 32 * GIB, (Gpu(IMAGINED, 6 * GIB, 8 * GIB, False, "Some GPU"),))
    choice = pick(model, machine, 8192)
    assert choice.n_gpu_layers == 27
    assert "27 of 29 layers" in choice.notices[0]
    one_more = model.needs([(8192, "f16")], 28)
    assert verdict(one_more, one_more.rows[0], machine) == "no"


def test_all_layers_are_offloaded_if_they_fit_or_if_there_is_no_gpu():
    assert pick(Model(), Machine(32 * GIB, 32 * GIB)).n_gpu_layers == -1
    roomy = Machine(32 * GIB, 32 * GIB, (Gpu(IMAGINED, 24 * GIB, 24 * GIB),))
    choice = pick(Model(card=True), roomy, 8192)
    assert (choice.n_gpu_layers, choice.notices) == (-1, ())


def test_a_requested_number_of_layers_is_not_changed():
    machine = Machine(32 * GIB, 32 * GIB, (Gpu(IMAGINED, 6 * GIB, 8 * GIB, False, "Some GPU"),))
    choice = pick(Model(card=True), machine, ctx_size=8192, n_gpu_layers=29)
    assert choice.n_gpu_layers == 29
    assert (choice.refusal.place, choice.refusal.room) == ("Some GPU", 5 * GIB)
    assert choice.refusal.too_many_layers and "-ngl auto" in refused(choice.refusal)
    assert pick(Model(card=True), machine, 8192, n_gpu_layers=0).notices == ()


@pytest.mark.slow
@given(st.integers(0, 16 << 10), st.integers(1, 8 << 10))
def test_the_gpu_gets_as_many_layers_as_fit(card_mib, weights_mib):
    model = Model(weights=weights_mib * MIB, card=True)
    machine = Machine(None, None, (Gpu(IMAGINED, card_mib * MIB, 0),))
    choice = pick(model, machine, ctx_size=4096)
    assume(choice.n_gpu_layers)
    memory = model.needs([(4096, "f16")], choice.n_gpu_layers)
    assert verdict(memory, memory.rows[0], machine) == "fits"
    if choice.n_gpu_layers > 0:
        memory = model.needs([(4096, "f16")], choice.n_gpu_layers + 1)
        assert verdict(memory, memory.rows[0], machine) == "no"


def test_a_smaller_quant_is_suggested():
    assert smaller_quant(16.0, 16 * GIB, 9 * GIB) == "Q8_0"
    assert smaller_quant(4.89, 5 * GIB, 5 * GIB) == "IQ4_XS"
    assert smaller_quant(4.89, 5 * GIB, GIB) == ""
    assert smaller_quant(0.0, 5 * GIB, GIB) == ""


# the machine


def put(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def root(tmp_path):
    """A machine of 16 GiB, 12 of them available."""
    put(
        tmp_path,
        "proc/meminfo",
        f"MemTotal: {16 << 20} kB\nMemFree: 1 kB\nMemAvailable: {12 << 20} kB\n",
    )
    put(tmp_path, "proc/self/status", "Name:\tlcp\nVmSize:\t  1048576 kB\nVmData:\t 524288 kB\n")
    put(tmp_path, "proc/self/cgroup", "0::/\n")
    return tmp_path


def limits(root, **told):
    names = {"addresses": "Max address space", "data": "Max data size"}
    lines = [f"{names[k]:26}{v!s:21}unlimited            bytes" for k, v in told.items()]
    put(root, "proc/self/limits", "Limit  Soft Limit  Hard Limit  Units\n" + "\n".join(lines))


def test_a_machine_without_limits(root):
    limits(root, addresses="unlimited", data="unlimited")
    assert linux(root) == Machine(12 * GIB, 16 * GIB)


def test_mapped_files_count_as_free_memory_but_not_as_free_address_space(root):
    put(root, "proc/self/status", f"VmSize:\t 0 kB\nRssFile:\t {3 << 20} kB\n")
    assert linux(root) == Machine(12 * GIB, 16 * GIB, mapped=3 * GIB)
    limits(root, addresses=10 * GIB, data="unlimited")
    assert linux(root) == Machine(10 * GIB, 16 * GIB, mappable=10 * GIB, mapped=1 * GIB)


def test_without_proc_files_nothing_is_known(tmp_path):
    assert linux(tmp_path) == Machine(None, None)


def test_limits_of_the_process_count(root):
    limits(root, addresses=5 * GIB, data="unlimited")
    assert linux(root) == Machine(4 * GIB, 16 * GIB, mappable=4 * GIB)
    limits(root, addresses="unlimited", data=2 * GIB)
    assert linux(root) == Machine(2 * GIB - 512 * MIB, 16 * GIB)


def test_control_groups_version_2(root):
    """The smallest limit of the group and its ancestors counts; the page cache is free."""
    put(root, "proc/self/cgroup", "0::/user/me\n")
    for folder, most, now, cached in [
        ("user/me", "max", 3 * GIB, 0),
        ("user", f"{8 * GIB}\n", 3 * GIB, 2 * GIB),
    ]:
        put(root, f"sys/fs/cgroup/{folder}/memory.max", most)
        put(root, f"sys/fs/cgroup/{folder}/memory.current", f"{now}\n")
        stat = f"anon {now - cached}\ninactive_file {cached // 2}\nactive_file {cached // 2}\n"
        put(root, f"sys/fs/cgroup/{folder}/memory.stat", stat)
    assert linux(root) == Machine(7 * GIB, 8 * GIB)
    put(root, "sys/fs/cgroup/user/me/memory.high", f"{4 * GIB}")
    assert linux(root) == Machine(GIB, 4 * GIB)
    put(root, "sys/fs/cgroup/user/me/memory.current", f"{5 * GIB}")  # above its limit
    assert linux(root).free == 0


def test_control_groups_version_1(root):
    put(root, "proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/docker/abc\n0::/\n")
    folder = "sys/fs/cgroup/memory"  # the container does not have the group's own path
    put(root, f"{folder}/memory.limit_in_bytes", f"{6 * GIB}\n")
    put(root, f"{folder}/memory.usage_in_bytes", f"{4 * GIB}\n")
    put(root, f"{folder}/memory.stat", f"cache 9\ntotal_inactive_file {GIB}\ntotal_active_file 0\n")
    assert linux(root) == Machine(3 * GIB, 6 * GIB)
    put(root, f"{folder}/memory.limit_in_bytes", "9223372036854771712\n")
    assert linux(root) == Machine(12 * GIB, 16 * GIB)


VM_STAT = """Mach Virtual Memory Statistics: (page size of 16384 bytes)
Pages free:                               10000.
Pages active:                            400000.
Pages inactive:                           20000.
Pages speculative:                          300.
Pages wired down:                        100000.
Pages purgeable:                             40.
"""


def test_memory_of_a_mac():
    assert mac_free(VM_STAT) == 30340 * 16384
    assert mac_free("") is None


def test_memory_of_this_machine():
    here = machine()
    assert here.free and here.total and 0 < here.free <= here.total
