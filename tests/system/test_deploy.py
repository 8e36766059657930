"""What `deploy/` says must be true of the code: metrics, commands, options; and the tools' own checks."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest
from prometheus_client import CollectorRegistry

from topics.kafka_jars import KAFKA_VERSION
from workers.cli import root
from workers.metrics import AggregatorMetrics, RouterMetrics

DEPLOY = Path(__file__).parents[2] / "deploy"


def _known_metrics() -> set[str]:
    """Every name that Prometheus can see, `_bucket`, `_sum`, `_count` and `_total` among them."""
    names = set()
    for metrics in (RouterMetrics(CollectorRegistry()), AggregatorMetrics(CollectorRegistry())):
        for metric in metrics.registry.collect():
            names |= {metric.name, f"{metric.name}_total"} | {sample.name for sample in metric.samples}
    return names


def _tool(*command: str) -> None:
    """Runs a tool's check; skips by name where the tool is absent."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is absent")
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_use_only_metrics_that_workers_serve() -> None:
    """An alert on a misspelt metric would stay silent for ever."""
    used = set(re.findall(r"\bnamefree_\w+", (DEPLOY / "alerts.yml").read_text()))
    assert used
    assert used <= _known_metrics()


def test_every_alert_says_what_happened_and_what_to_do() -> None:
    """Whoever is called at night reads these two lines first."""
    alerts = re.split(r"(?m)^ +- alert: ", (DEPLOY / "alerts.yml").read_text())[1:]
    assert len(alerts) >= 6
    for alert in alerts:
        assert re.search(r"(?m)^ +summary: \S", alert), alert
        assert re.search(r"(?m)^ +description: \S", alert), alert


def test_promtool_accepts_the_configuration() -> None:
    """prometheus.yml and the rules that it names."""
    _tool("promtool", "check", "config", str(DEPLOY / "prometheus.yml"))


def test_promtool_finds_the_alerts_firing_when_they_should() -> None:
    """The rules' own unit tests."""
    _tool("promtool", "test", "rules", str(DEPLOY / "alerts.test.yml"))


def _worker_commands() -> list[list[str]]:
    """The argument lists that compose.yml gives the image's entry point, and what `init` runs in its shell."""
    text = (DEPLOY / "compose.yml").read_text()
    lists = [json.loads(found) for found in re.findall(r"(?m)^ +command: (\[.*\])$", text)]
    shell = [part.split()[1:] for one in lists if one[0].startswith("namefree ") for part in one[0].split(" && ")]
    return [one for one in lists if not one[0].startswith("namefree ")] + shell


@pytest.mark.parametrize("arguments", _worker_commands(), ids=" ".join)
def test_compose_runs_commands_that_there_are(arguments: list[str]) -> None:
    """A renamed option would show only when a cluster starts."""
    command: click.Command = root
    context = click.Context(root)
    while isinstance(command, click.Group):
        found = command.get_command(context, arguments[0])
        assert found is not None, arguments
        command, arguments = found, arguments[1:]
    command.make_parser(click.Context(command)).parse_args(list(arguments))


def test_compose_runs_all_workers() -> None:
    """Router, aggregator and trainer: the loop turns only with all three."""
    first = {arguments[0] for arguments in _worker_commands()}
    assert {"topics", "catalogue", "route", "aggregate", "cycle"} <= first


def test_compose_and_the_embedded_broker_are_of_one_kafka_version() -> None:
    """What was tested is what is deployed."""
    assert f"image: apache/kafka:{KAFKA_VERSION}" in (DEPLOY / "compose.yml").read_text()


def test_compose_has_the_controller_apart_from_the_broker() -> None:
    """A broker that is its own controller gives out old offsets after a kill: see the operator's manual."""
    roles = re.findall(r"(?m)^ +KAFKA_PROCESS_ROLES: (.*)$", (DEPLOY / "compose.yml").read_text())
    assert sorted(roles) == ["broker", "controller"]


def test_compose_binds_ports_to_the_loopback_only() -> None:
    """Nothing in there asks who is calling."""
    ports = re.findall(r"(?m)^ +ports: \[(.*)\]$", (DEPLOY / "compose.yml").read_text())
    assert ports
    assert all(port.startswith('"127.0.0.1:') for port in ports)


def test_docker_accepts_the_compose_file() -> None:
    """`docker compose config` needs no daemon."""
    if shutil.which("docker") is None:
        pytest.skip("docker is absent")
    if subprocess.run(["docker", "compose", "version"], capture_output=True).returncode != 0:
        pytest.skip("docker's compose plugin is absent")
    _tool("docker", "compose", "-f", str(DEPLOY / "compose.yml"), "config", "--quiet")


def test_the_image_serves_metrics_where_prometheus_looks() -> None:
    """One port for any worker, in the image, its health check and the scrape configuration."""
    image = (DEPLOY / "Dockerfile").read_text()
    ports = set(re.findall(r"METRICS_PORT=(\d+)", image)) | set(re.findall(r"127\.0\.0\.1:(\d+)/live", image))
    assert ports == set(re.findall(r"port: (\d+)", (DEPLOY / "prometheus.yml").read_text()))
    assert len(ports) == 1


@pytest.mark.parametrize("variable", re.findall(r"NAMEFREE_\w+", (DEPLOY / "Dockerfile").read_text()))
def test_the_image_sets_variables_that_are_read(variable: str) -> None:
    """A misspelt variable would leave the metrics on the container's loopback."""
    if variable == "NAMEFREE_STORE":
        return
    _, command, option = variable.split("_", 2)
    found = root.get_command(click.Context(root), command.lower())
    assert found is not None
    assert option.lower() in {parameter.name for parameter in found.params}
