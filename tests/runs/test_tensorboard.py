"""What TensorBoard's own readers make of a run: hyper-parameters, figures, descriptions, one row a group of seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tensorboard import context
from tensorboard.backend.event_processing import data_provider, event_file_loader
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import DataClass
from tensorboard.plugins import base_plugin
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import api_pb2, backend_context, get_experiment, list_session_groups

from o3f.runs import logger as logging
from o3f.runs.logger import RunLogger, read_csv
from o3f.runs.tags import TAGS

SETTINGS: dict[str, Any] = {
    "name": "sweep",
    "seed": 0,
    "device": "cpu",
    "algorithm": {"name": "iql", "hidden_sizes": [8, 8], "expectile": 0.7, "layer_norm": False, "decay": None},
}
ALL = [api_pb2.STATUS_UNKNOWN, api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE, api_pb2.STATUS_RUNNING]


def write(root: Path, arm: str, seed: int, score: float, **changed: Any) -> Path:
    settings = SETTINGS | {"seed": seed, "algorithm": SETTINGS["algorithm"] | changed}
    folder = root / "sweep" / arm / f"seed{seed}"
    with RunLogger(folder, settings=settings) as logger:
        logger.log(0, {"eval/score": 1.0, "eval/return": -7.0})
        logger.log(50, {"eval/score": score, "eval/return": 2 * score})
    return folder


def backend(root: Path) -> backend_context.Context:
    """The part of TensorBoard behind its tab HParams."""
    runs = EventMultiplexer().AddRunsFromDirectory(str(root)).Reload()
    provider = data_provider.MultiplexerDataProvider(runs, str(root))
    return backend_context.Context(base_plugin.TBContext(multiplexer=runs, data_provider=provider))


def groups(root: Path) -> dict[str, Any]:
    """The rows of the table, by arm."""
    request = api_pb2.ListSessionGroupsRequest(
        start_index=0, slice_size=100, allowed_statuses=ALL, aggregation_type=api_pb2.AGGREGATION_AVG
    )
    handler = list_session_groups.Handler(context.RequestContext(), backend(root), "", request)
    return {group.name: group for group in handler.run().session_groups}


def metrics(row: Any) -> dict[str, float]:
    return {each.name.tag: each.value for each in row.metric_values}


def test_an_arm_is_a_row_with_its_values_and_the_means_over_its_seeds(tmp_path: Path) -> None:
    for seed, score in enumerate([10.0, 20.0]):
        write(tmp_path, "optimistic", seed, score)
        write(tmp_path, "noise", seed, score - 5.0, expectile=0.9)
    table = {name.split("/")[1]: row for name, row in groups(tmp_path).items()}
    assert table.keys() == {"optimistic", "noise"}
    assert [session.name for session in table["noise"].sessions] == ["sweep/noise/seed0", "sweep/noise/seed1"]
    assert metrics(table["optimistic"]) == {"eval/score": 15.0, "eval/return": 30.0}
    assert metrics(table["noise"]) == {"eval/score": 10.0, "eval/return": 20.0}
    values = table["noise"].hparams
    assert values["algorithm.expectile"].number_value == 0.9
    assert values["algorithm.layer_norm"].WhichOneof("kind") == "bool_value"
    assert values["algorithm.hidden_sizes"].string_value == "[8, 8]"
    assert not {"seed", "device", "algorithm.decay"} & set(values)


def test_what_differs_comes_first(tmp_path: Path) -> None:
    write(tmp_path, "one", 0, 1.0)
    write(tmp_path, "two", 0, 1.0, expectile=0.9)
    experiment = get_experiment.Handler(
        context.RequestContext(), backend(tmp_path), "", api_pb2.GetExperimentRequest()
    ).run()
    assert [info.name for info in experiment.hparam_infos if info.differs] == ["algorithm.expectile"]
    assert experiment.hparam_infos[0].name == "algorithm.expectile"
    assert [info.name.tag for info in experiment.metric_infos] == ["eval/return", "eval/score"]


def test_offline_steps_have_charts_of_their_own(tmp_path: Path) -> None:
    write(tmp_path, "online", 0, 10.0)
    with RunLogger(tmp_path / "sweep/offline/seed0", settings=SETTINGS, prefix="offline/") as logger:
        logger.log(20_000, {"eval/score": 9.0})
    provider = backend(tmp_path).tb_context.data_provider
    listed = provider.list_scalars(context.RequestContext(), experiment_id="", plugin_name="scalars")
    assert set(listed["sweep/online/seed0"]) == {"eval/score", "eval/return"}
    assert set(listed["sweep/offline/seed0"]) == {"offline/eval/score"}
    assert listed["sweep/offline/seed0"]["offline/eval/score"].description == f"{TAGS['eval/score'].text} [1]"
    assert read_csv(tmp_path / "sweep/offline/seed0/metrics.csv") == [(20_000, "eval/score", 9.0)]
    (event,) = EventAccumulator(str(tmp_path / "sweep/offline/seed0")).Reload().Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    assert {category.title.split("/")[0] for category in layout.category} == {"offline"}
    lines = [list(chart.multiline.tag) for category in layout.category for chart in category.chart]
    assert ["^offline/eval/score$", "^offline/eval_optimistic/score$"] in lines


def test_seeds_of_other_settings_are_another_row(tmp_path: Path) -> None:
    write(tmp_path, "same", 0, 1.0)
    write(tmp_path, "same", 1, 3.0, expectile=0.9)
    assert sorted(metrics(row)["eval/score"] for row in groups(tmp_path).values()) == [1.0, 3.0]


def test_a_resumed_run_is_there_once_and_its_end_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = logging.time.time()  # names of event files hold the time
    monkeypatch.setattr(logging.time, "time", lambda: now)
    folder = write(tmp_path, "arm", 0, 10.0)
    now += 60
    resumed = RunLogger(folder, 50, settings=SETTINGS)
    resumed.log(60, {"eval/score": 12.0})
    resumed.flush()
    (row,) = groups(tmp_path).values()
    assert [session.status for session in row.sessions] == [api_pb2.STATUS_UNKNOWN]
    with pytest.raises(RuntimeError), resumed:
        raise RuntimeError
    (row,) = groups(tmp_path).values()
    assert [session.status for session in row.sessions] == [api_pb2.STATUS_FAILURE]
    assert metrics(row) == {"eval/score": 12.0, "eval/return": 20.0}
    assert not [path for path in folder.iterdir() if path.is_dir()]
    with pytest.raises(KeyboardInterrupt), RunLogger(folder, 60, settings=SETTINGS):
        raise KeyboardInterrupt
    (row,) = groups(tmp_path).values()
    assert [session.status for session in row.sessions] == [api_pb2.STATUS_UNKNOWN]


def test_the_charts_and_descriptions_are_those_of_the_list_of_tags(tmp_path: Path) -> None:
    events = EventAccumulator(str(write(tmp_path, "arm", 0, 10.0))).Reload()
    (event,) = events.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    lines = [list(chart.multiline.tag) for category in layout.category for chart in category.chart]
    assert ["^eval/score$", "^eval_optimistic/score$"] in lines
    assert {pattern.strip("^$") for patterns in lines for pattern in patterns} <= TAGS.keys()
    provider = backend(tmp_path).tb_context.data_provider
    listed = provider.list_scalars(context.RequestContext(), experiment_id="", plugin_name="scalars")
    said = listed["sweep/arm/seed0"]["eval/return"].description
    assert said == f"{TAGS['eval/return'].text} [reward]"
    (file,) = (tmp_path / "sweep/arm/seed0").glob("events.*")
    records = map(Event.FromString, event_file_loader.RawEventFileLoader(str(file)).Load())
    values = [value for record in records for value in record.summary.value if value.tag == "eval/return"]
    # Without a class of data TensorBoard's own server, which is not the reader above, drops the description.
    assert [value.metadata.data_class for value in values] == [DataClass.DATA_CLASS_SCALAR, 0]
