"""`lens eval list | fetch | generate | observe | run | report`: published benchmarks in four steps.

Each step reads and writes files of one folder: it can be stopped, repeated, or done by others.
"""

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from lens.cli.arguments import DEFAULT_MODEL, AsJson, SolverName, parse_size
from lens.cli.generation.reasoner_options import (
    MODEL_HELP,
    REASONER_HELP,
    SYSTEM_PROMPT_HELP,
    ReasonerOptions,
)
from lens.errors import SettingError
from lens.files import cache_folder, check_writable, write_bytes_atomic
from lens.sampling.solvers import DEFAULT_SOLVER

if TYPE_CHECKING:
    from lens.benchmarks.base import Benchmark, BenchmarkPrompt
    from lens.evals.suite.observation import ObservationCount, Observers
    from lens.evals.suite.run_folder import Rewriting, RunFolder
    from lens.evals.suite.scoring import RunScore
    from lens.sampling.resolved_model import ResolvedModel

logger = logging.getLogger(__name__)

OBSERVERS = ("ssd", "rapidocr", "judge")
DEFAULT_OBSERVER = {"geneval": "ssd", "longtext": "rapidocr", "cvtg": "rapidocr", "dpg": "judge"}
NUM_SHOWN = 3

BenchmarkName = Annotated[str, typer.Argument(help="Such as geneval; `lens eval list` has all.")]
Data = Annotated[
    Path | None, typer.Option(metavar="PATH", help="Folder with the benchmark's files (what was fetched).")
]
Model = Annotated[str, typer.Option("--model", help="Known name, folder or file.")]
Limit = Annotated[int | None, typer.Option(min=1, metavar="N", help="N prompts, spread over the benchmark.")]
Images = Annotated[int | None, typer.Option(min=1, help="Images of each prompt (the benchmark's).")]
Size = Annotated[str | None, typer.Option(metavar="WxH", help="Size of the images (the model's own).")]
Steps = Annotated[int | None, typer.Option(min=1, help="Steps, in place of the model's own number.")]
Guidance = Annotated[float | None, typer.Option(help="Guidance, in place of the model's own scale.")]
Solver = Annotated[SolverName, typer.Option(help="ODE solver.")]
Seed = Annotated[int, typer.Option(help="Base of all seeds; runs of one base are paired.")]
Batch = Annotated[int, typer.Option("--batch", min=1, help="Images generated at a time.")]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Folder of the run (runs/eval/BENCHMARK-MODEL).")
]
Observer = Annotated[
    str | None, typer.Option(metavar="|".join(OBSERVERS), help="What sees the images (the benchmark's).")
]
Reason = Annotated[bool, typer.Option("--reason", help="Let a reasoner rewrite the prompts first.")]
ReasonerName = Annotated[str | None, typer.Option("--reasoner", metavar="WHAT", help=REASONER_HELP)]
ReasonerModel = Annotated[str | None, typer.Option(metavar="NAME", help=MODEL_HELP)]
SystemPromptName = Annotated[str | None, typer.Option("--system-prompt", help=SYSTEM_PROMPT_HELP)]
JudgeUrl = Annotated[
    str | None, typer.Option(metavar="URL", help="Endpoint of a judge, with OpenAI's API.")
]
JudgeModel = Annotated[str | None, typer.Option(metavar="NAME", help="Its model.")]
AllowMissing = Annotated[
    bool, typer.Option("--allow-missing", help="Print headlines of the images that are there.")
]
RunFolderPath = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")]


def list_benchmarks(
    benchmark: Annotated[str | None, typer.Argument(help="Only this one, with its notes.")] = None,
    as_json: AsJson = False,
) -> None:
    """List benchmarks: images, licence, whether their files are here; with a name, its notes."""
    from lens.benchmarks.registry import BENCHMARKS, find_benchmark
    from lens.evals.scores.registry import SCORERS

    chosen = [find_benchmark(benchmark)] if benchmark else list(BENCHMARKS.values())
    if as_json:
        for one in chosen:
            print(json.dumps(_facts_of(one), ensure_ascii=False))
        return
    for one in chosen:
        facts = _facts_of(one)
        print(f"{one.name:<10} {one.title}; {one.num_images} images a prompt; files {facts['files']}")
        print(f"{'':<10} licence: {one.licence}")
        for note in one.notes if benchmark else ():
            print(f"{'':<10} - {note}")
    if not benchmark:
        print(f"\nObservations that `lens eval score` reads: {', '.join(SCORERS)}")


def fetch(
    name: Annotated[str, typer.Argument(metavar="BENCHMARK|ssd", help="A benchmark, or the SSD detector.")],
    data: Data = None,
) -> None:
    """Download the files of a benchmark, or the weights of the SSD detector; print their folder."""
    from lens.benchmarks import fetch as fetching
    from lens.benchmarks.registry import data_folder, find_benchmark
    from lens.cli.progress import ProgressBar

    if name == "ssd":
        from lens.evals.observers.ssd import fetch_weights

        print(fetch_weights())
        return
    benchmark = find_benchmark(name)
    folder = data or data_folder(name)
    check_writable(folder, "--data")
    with ProgressBar(num_images=1) as progress:
        fetching.fetch(benchmark, folder, progress)
    print(folder)


class RunOptions(NamedTuple):
    """What the options say of the images of a run."""

    benchmark: str
    model: str
    data: Path | None
    limit: int | None
    images: int | None
    size: str | None
    steps: int | None
    guidance: float | None
    solver: str
    seed: int
    batch: int
    out: Path | None
    reasoner: ReasonerOptions | None
    """What rewrites the prompts; None draws them as they are published."""


def generate(
    benchmark: BenchmarkName,
    model: Model = DEFAULT_MODEL,
    data: Data = None,
    limit: Limit = None,
    images: Images = None,
    size: Size = None,
    steps: Steps = None,
    guidance: Guidance = None,
    solver: Solver = DEFAULT_SOLVER,
    seed: Seed = 0,
    batch: Batch = 8,
    out: Out = None,
    reason: Reason = False,
    reasoner: ReasonerName = None,
    reasoner_model: ReasonerModel = None,
    system_prompt: SystemPromptName = None,
) -> None:
    """Draw the images of a benchmark that are not there yet; print the folder of the run."""
    asked = _reasoner_options(reason, reasoner, reasoner_model, system_prompt)
    options = RunOptions(
        benchmark, model, data, limit, images, size, steps, guidance, solver, seed, batch, out, asked
    )
    run, _ = _generate(options)
    print(run.folder)


def observe(
    run: RunFolderPath, observer: Observer = None, judge_url: JudgeUrl = None, judge_model: JudgeModel = None
) -> None:
    """Look at the images of a run; print the files of observations."""
    from lens.benchmarks.registry import find_benchmark
    from lens.evals.suite.scoring import read_run

    folder = read_run(run)
    benchmark = find_benchmark(folder.settings().benchmark)
    observers = _observers(benchmark, observer, judge_url, judge_model)
    for path in _observe(folder, benchmark, observers):
        print(path)


def run(
    benchmark: BenchmarkName,
    model: Model = DEFAULT_MODEL,
    data: Data = None,
    limit: Limit = None,
    images: Images = None,
    size: Size = None,
    steps: Steps = None,
    guidance: Guidance = None,
    solver: Solver = DEFAULT_SOLVER,
    seed: Seed = 0,
    batch: Batch = 8,
    out: Out = None,
    reason: Reason = False,
    reasoner: ReasonerName = None,
    reasoner_model: ReasonerModel = None,
    system_prompt: SystemPromptName = None,
    observer: Observer = None,
    judge_url: JudgeUrl = None,
    judge_model: JudgeModel = None,
    allow_missing: AllowMissing = False,
    as_json: AsJson = False,
) -> None:
    """Draw, observe and score a benchmark; print the scores and write a page. A second call goes on."""
    from lens.benchmarks.registry import find_benchmark

    asked = _reasoner_options(reason, reasoner, reasoner_model, system_prompt)
    options = RunOptions(
        benchmark, model, data, limit, images, size, steps, guidance, solver, seed, batch, out, asked
    )
    # Whatever is missing is told before any image is drawn.
    observers = _observers(find_benchmark(benchmark), observer, judge_url, judge_model)
    folder, found = _generate(options)
    _observe(folder, found, observers)
    _report([folder.folder], folder.folder / "report.html", allow_missing, as_json)


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN ...", help="Folders of runs.")],
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE.html", help="The page.")] = None,
    allow_missing: AllowMissing = False,
    as_json: AsJson = False,
) -> None:
    """Score the observations of runs again, write one page of all, and print the scores."""
    _report(runs, out or runs[0] / "report.html", allow_missing, as_json)


def _reasoner_options(
    is_used: bool, reasoner: str | None, model: str | None, system_prompt: str | None
) -> ReasonerOptions | None:
    """Return the options of the reasoner that rewrites prompts; None if none does."""
    asked = ReasonerOptions(reasoner, model, system_prompt)
    asked.check(is_used)
    return asked if is_used else None


def _generate(options: RunOptions) -> tuple["RunFolder", "Benchmark"]:
    """Draw what is missing of a run, and return its folder and its benchmark."""
    from lens.benchmarks.base import read_data, spread
    from lens.benchmarks.registry import data_folder, find_benchmark
    from lens.cli.process import prepare_libraries
    from lens.cli.progress import ProgressBar, with_log_lines
    from lens.core.resolution import resolve_resolution
    from lens.evals.nano import NanoEvalOptions, build_pipeline, eval_model
    from lens.evals.suite.generation import generate_missing, pipeline_draw
    from lens.evals.suite.run_folder import EvalRunSettings, RunFolder
    from lens.sampling.resolved_model import ResolvedModel

    benchmark = find_benchmark(options.benchmark)
    data = read_data(benchmark, options.data or data_folder(benchmark.name))
    chosen = eval_model(options.model, options.steps, options.guidance)
    resolved = ResolvedModel.of(options.model)
    base = resolved.defaults.base_resolution
    size = parse_size(options.size) if options.size else resolve_resolution(default_base=base)[::-1]
    run = RunFolder(options.out or Path("runs/eval") / f"{benchmark.name}-{Path(options.model).name}")
    check_writable(run.folder)
    with ProgressBar(num_images=1) as progress:
        report = with_log_lines(progress)
        prompts, rewriting = spread(data.prompts, options.limit), None
        if options.reasoner:
            prompts, rewriting = _rewrite(prompts, options.reasoner, resolved, report)
        settings = EvalRunSettings(
            benchmark=benchmark.name, data_hash=data.sha256, has_official_data=data.has_official_files,
            model=options.model, model_hash=chosen.hash, steps=chosen.steps, guidance=chosen.guidance,
            solver=options.solver, width=size[0], height=size[1], seed=options.seed,
            num_images=options.images or benchmark.num_images, limit=options.limit, rewriting=rewriting,
        )  # fmt: skip
        run.start(settings, prompts)
        if any(not (run.images / image.name).is_file() for image in run.planned(benchmark)):
            prepare_libraries()
            draw = pipeline_draw(build_pipeline(chosen, NanoEvalOptions()), settings)
            generate_missing(run, benchmark, draw, options.batch, report)
    return run, benchmark


def _rewrite(
    prompts: list["BenchmarkPrompt"], asked: ReasonerOptions, model: "ResolvedModel", report: Any
) -> tuple[list["BenchmarkPrompt"], "Rewriting"]:
    """Return prompts as a reasoner wrote them; its answers are cached, so a run goes on with the same."""
    from lens.cli.generation.reasoning import load_reasoner
    from lens.evals.suite.rewriting import rewrite_prompts

    def no_session() -> Any:
        needs = "an endpoint, nano, or a folder of transformers"
        raise SettingError("--reasoner", "gpt-oss", needs, "A benchmark loads no text encoder for it.")

    reasoner = load_reasoner(asked, model, no_session, cache_folder())
    return rewrite_prompts(prompts, reasoner, report)


def _observers(
    benchmark: "Benchmark", name: str | None, judge_url: str | None, judge_model: str | None
) -> "Observers":
    """Return the observers that a benchmark is looked at with.

    Raises: SettingError for a name of another kind; LensError where weights or a package are missing.
    """
    from lens.evals.observers.colours import PixelColours
    from lens.evals.suite.observation import OBSERVE, Observers

    if not set(benchmark.scorers) & set(OBSERVE):
        fix = f"Write observations by hand, and score them: lens eval score {benchmark.name} FILE."
        raise SettingError("BENCHMARK", benchmark.name, "a benchmark with an observer here", fix)
    needed = DEFAULT_OBSERVER[benchmark.name]
    chosen = name or needed
    if chosen not in OBSERVERS:
        raise SettingError("--observer", chosen, f"one of {', '.join(OBSERVERS)}")
    if chosen != needed:
        raise SettingError("--observer", chosen, f"{needed} for {benchmark.name}")
    if chosen == "ssd":
        from lens.evals.observers.ssd import SsdDetector

        return Observers(detector=SsdDetector(), colours=PixelColours())
    if chosen == "judge":
        from lens.evals.observers.judge import VlmJudge
        from lens.llm.client import Endpoint

        for option, value in (("--judge-url", judge_url), ("--judge-model", judge_model)):
            if not value:
                raise SettingError(option, value, f"a value for {benchmark.name}, which a judge looks at")
        endpoint = Endpoint.of({"url": judge_url, "model": judge_model}, source="--judge-url")
        return Observers(judge=VlmJudge(endpoint, cache_folder() / "judge.jsonl"))
    from lens.evals.observers.reader import RapidOcrReader

    return Observers(reader=RapidOcrReader())


def _observe(run: "RunFolder", benchmark: "Benchmark", observers: "Observers") -> list[Path]:
    """Look at the images of a run, tell what was met, and return the files of observations."""
    from lens.cli.progress import ProgressBar
    from lens.evals.suite.observation import OBSERVE, observe_run

    paths = []
    for scorer in benchmark.scorers:
        if scorer in OBSERVE:
            with ProgressBar(num_images=1) as progress:
                count = observe_run(run, benchmark, scorer, observers, progress)
            _tell(count)
            paths.append(run.observations_path(scorer))
    return paths


def _tell(count: "ObservationCount") -> None:
    """Log images that are missing, black or doubled, by name."""
    kinds = {
        "missing": count.missing, "black": count.black, "doubled": count.doubled,
        "without all answers": count.unanswered,
    }  # fmt: skip
    for kind, names in kinds.items():
        if names:
            more = f" and {len(names) - NUM_SHOWN} more" if len(names) > NUM_SHOWN else ""
            logger.warning("%d images are %s: %s%s", len(names), kind, ", ".join(names[:NUM_SHOWN]), more)


def _report(folders: list[Path], path: Path, allow_missing: bool, as_json: bool) -> None:
    from lens.benchmarks.registry import find_benchmark
    from lens.evals.suite.report import write_report
    from lens.evals.suite.scoring import read_run, score_run

    scored = []
    for folder in folders:
        found = read_run(folder)
        scores = score_run(found, find_benchmark(found.settings().benchmark), allow_missing)
        scored.append((found, scores))
        values = [score.to_json() for score in scores]
        text = json.dumps(values, indent=1, ensure_ascii=False)
        write_bytes_atomic(folder / "scores.json", f"{text}\n".encode())
        for score in scores:
            if as_json:
                print(json.dumps(score.to_json(), ensure_ascii=False))
            else:
                _print_score(folder, score)
    write_report(scored, path)
    if not as_json:
        print(path)


def _print_score(folder: Path, score: "RunScore") -> None:
    print(f"{score.scorer}  {folder}  {score.settings.column}")
    interval = score.interval
    spread = ""
    if interval:
        spread = f"  ({interval.low:.4f} to {interval.high:.4f}, {interval.num_prompts} prompts)"
    rows: list[tuple[str, Any]] = [("headline", score.score.headline), *score.score.parts.items()]
    for name, value in rows:
        shown = "nothing counts" if value is None else f"{value:.4f}"
        print(f"  {name:<24} {shown}{spread if name == 'headline' else ''}")
    for note in score.notes:
        print(f"  note: {note}")


def _facts_of(benchmark: "Benchmark") -> dict[str, Any]:
    from lens.benchmarks.registry import data_folder

    folder = data_folder(benchmark.name)
    is_here = all((folder / file.name).is_file() for file in benchmark.files)
    where = str(folder) if is_here else "not here: lens eval fetch " + benchmark.name
    return {
        "name": benchmark.name, "title": benchmark.title, "licence": benchmark.licence,
        "images_a_prompt": benchmark.num_images, "scorers": list(benchmark.scorers),
        "files": where if is_here or benchmark.can_be_fetched else "by --data PATH",
        "notes": list(benchmark.notes),
    }  # fmt: skip
