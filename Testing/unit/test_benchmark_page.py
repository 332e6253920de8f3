import importlib.util
import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("run_all", ROOT / "Testing" / "benchmarks" / "run_all.py")
assert SPEC is not None
assert SPEC.loader is not None
run_all = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(run_all)


def test_every_benchmark_has_a_section_with_its_figures_as_tables(tmp_path: Path) -> None:
    rows = [{"size": "tiny", "ours": {"wall_s": 1.23456}}, {"size": "full", "monai": {"left_out": "needs | much"}}]
    (tmp_path / "inference.json").write_text(json.dumps({"machine": {"threads": 2}, "rows": rows}))
    text = "\n".join(run_all.page(["inference", "registration"], tmp_path))
    assert "## Inference: ours against MONAI's" in text
    assert "- machine threads: 2" in text
    assert "| size | ours wall_s | monai left_out |" in text
    assert "| tiny | 1.235 |  |" in text
    assert "| full |  | needs / much |" in text
    assert text.endswith("No figures yet.")


def test_a_title_is_the_first_sentence_however_its_lines_break(tmp_path: Path) -> None:
    (tmp_path / "bench_x.py").write_text('"""Ours against\ntheirs, both timed. And more."""\n')
    assert run_all.title(tmp_path / "bench_x.py") == "Ours against theirs, both timed"


def test_long_tables_give_way_to_their_summary() -> None:
    rows = [{"n": n} for n in range(100)]
    assert "**rows**" not in "\n".join(run_all.section({"summary": {"found": 1.0}, "rows": rows}))
    assert "**rows**" in "\n".join(run_all.section({"rows": rows}))
