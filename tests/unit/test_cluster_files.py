"""The files that describe a cluster, against Ray's own schema and checks and EC2's parameters; and what travels."""

import copy
import json
import re
import shlex
import zipfile
from pathlib import Path
from typing import Any

import boto3
import pytest
import ray
import yaml
from cluster_file import ROOT, cluster_file, own_machines
from jsonschema import ValidationError, validate
from moto import mock_aws
from ray._private.runtime_env.packaging import create_package
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import start
from rayjob_schema import RAYJOB

from qa_ray.cli.arguments import parse_run
from qa_ray.config.policies import Resume

ADDRESSES = {"HEAD": "10.0.0.1", "WORKER_1": "10.0.0.2", "WORKER_2": "10.0.0.3", "USER": "somebody"}


def prepared(text: str) -> dict[str, Any]:
    """What Ray's launcher makes of a cluster file, once its own checks have passed."""
    config = prepare_config(copy.deepcopy(yaml.safe_load(text)))
    validate_config(config)
    return dict(config)


def test_cluster_file_passes_rays_schema_and_checks() -> None:
    config = prepared(cluster_file())
    kinds = config["available_node_types"]
    assert kinds["head"]["resources"] == {"CPU": 0}
    assert kinds["gpu"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert all("InstanceMarketOptions" not in kinds[name]["node_config"] for name in ("head", "driver"))
    assert [kinds[name]["min_workers"] for name in ("driver", "gpu")] == [0, 0]
    assert config["max_workers"] >= sum(kinds[name]["max_workers"] for name in ("driver", "gpu"))
    assert config["idle_timeout_minutes"] <= 30


def test_schema_refuses_a_misspelt_field() -> None:
    with pytest.raises(Exception, match="idle_timeout_minuts"):
        prepared(cluster_file().replace("idle_timeout_minutes", "idle_timeout_minuts"))


@pytest.mark.parametrize("text", [cluster_file(), own_machines(**ADDRESSES)], ids=["cloud", "own machines"])
def test_every_node_starts_with_the_token_and_a_dashboard_on_loopback(text: str) -> None:
    config = prepared(text)
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert "RAY_AUTH_MODE=token" in config[key][-1]
    head = options_of(config["head_start_ray_commands"][-1])
    assert head["--dashboard-host"] == "127.0.0.1"
    assert head["--num-cpus"] == "0"
    allowed = {option for parameter in start.params for option in parameter.opts}
    assert allowed >= head.keys() | options_of(config["worker_start_ray_commands"][-1]).keys()


def options_of(command: str) -> dict[str, str]:
    """The options of `ray start` in a shell command."""
    words = shlex.split(command.partition("ray start")[2])
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def test_own_machines_replace_the_cloud_alone() -> None:
    config = prepared(own_machines(**ADDRESSES))
    assert config["provider"] == {"type": "local", "head_ip": "10.0.0.1", "worker_ips": ["10.0.0.2", "10.0.0.3"]}
    assert config["head_setup_commands"] == config["worker_setup_commands"] == []
    cloud = prepared(cluster_file())
    for key in ("file_mounts", "head_start_ray_commands", "worker_start_ray_commands", "cluster_name"):
        assert config[key] == cloud[key]


# Alone in its process: moto's decorator empties the S3 server that other tests use.
@pytest.mark.long
def test_nodes_of_every_kind_are_made_from_their_settings_on_simulated_ec2(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "nobody")
    config = prepared(cluster_file())
    with mock_aws():
        ec2 = boto3.client("ec2", config["provider"]["region"])
        subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
        boto3.client("iam").create_instance_profile(InstanceProfileName="qa-ray")
        provider = AWSNodeProvider(config["provider"], config["cluster_name"])
        for name, kind in config["available_node_types"].items():
            # The launcher fills in the network; Amazon's own images are known to Amazon alone.
            known = {"SubnetIds": [subnet], "ImageId": ec2.describe_images()["Images"][0]["ImageId"]}
            provider.create_node({**kind["node_config"], **known}, {"kind": name}, 1)
        found = [one for group in ec2.describe_instances()["Reservations"] for one in group["Instances"]]
    made = {tag["Value"]: one for one in found for tag in one["Tags"] if tag["Key"] == "kind"}
    assert {name: one["InstanceType"] for name, one in made.items()} == {
        "head": "m7i.xlarge",
        "driver": "m7i.2xlarge",
        "gpu": "g6.2xlarge",
    }
    assert made["gpu"]["InstanceLifecycle"] == "spot"
    assert "IamInstanceProfile" not in made["head"]


RAYJOB_TEXT = (ROOT / "jobs" / "rayjob.yaml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def rayjob() -> dict[str, Any]:
    return dict(yaml.safe_load(RAYJOB_TEXT))


def test_rayjob_has_fields_and_values_that_kuberay_takes(rayjob: dict[str, Any]) -> None:
    validate(rayjob, RAYJOB)
    spec = rayjob["spec"]
    # Else KubeRay refuses the time after which it cleans up.
    assert spec["shutdownAfterJobFinishes"]
    for group in spec["rayClusterSpec"]["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        template = group["template"]["spec"]
        mounts = template["containers"][0].get("volumeMounts", [])
        assert {mount["name"] for mount in mounts} == {volume["name"] for volume in template.get("volumes", [])}


@pytest.mark.parametrize(
    ("sound", "broken", "words"),
    [
        ("ttlSecondsAfterFinished", "ttlSecondAfterFinished", "'ttlSecondAfterFinished' was unexpected"),
        ("backoffLimit: 2", "backoffLimit: '2'", "'2' is not of type 'integer'"),
        ("submissionMode: K8sJobMode", "submissionMode: K8sMode", "'K8sMode' is not one of"),
        ("shutdownAfterJobFinishes: true", "shutdownAfterJobFinishes: 'yes'", "'yes' is not of type 'boolean'"),
        ("        minReplicas: 1\n", "", "'minReplicas' is a required property"),
        ('num-cpus: "0"', "num-cpus: 0", "0 is not of type 'string'"),
        ("nodeSelector:", "nodeSelektor:", "'nodeSelektor' was unexpected"),
        ("memory: 28Gi", "memory: 28GB", "'28GB' does not match"),
    ],
    ids=["misspelt", "number as text", "mode", "flag as text", "missing", "start option", "pod", "quantity"],
)
def test_mistake_in_the_rayjob_is_found(sound: str, broken: str, words: str) -> None:
    assert sound in RAYJOB_TEXT
    with pytest.raises(ValidationError, match=words):
        validate(yaml.safe_load(RAYJOB_TEXT.replace(sound, broken)), RAYJOB)


def test_rayjob_trains_with_our_command_line_on_the_version_of_ray_that_is_tested(rayjob: dict[str, Any]) -> None:
    spec = rayjob["spec"]
    program, command, *arguments = shlex.split(spec["entrypoint"])
    assert (program, command) == ("qa-ray", "train")
    config = parse_run(arguments).config
    # A second attempt must find the first one's run.
    assert config.run.name
    assert config.run.resume is Resume.IF_AVAILABLE
    assert config.cluster.autoscaling
    assert spec["rayClusterSpec"]["rayVersion"] == ray.__version__
    assert spec["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    assert json.loads(spec["entrypointResources"]) == {"driver": 1}


def test_rayjob_groups_start_with_rays_options_and_take_secrets_from_the_secret(rayjob: dict[str, Any]) -> None:
    cluster = rayjob["spec"]["rayClusterSpec"]
    head, (driver, gpu) = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    allowed = {option.removeprefix("--") for parameter in start.params for option in parameter.opts}
    for group in (head, driver, gpu):
        parameters = group["rayStartParams"]
        assert allowed >= parameters.keys()
        (container,) = group["template"]["spec"]["containers"]
        assert container["envFrom"] == [{"secretRef": {"name": "qa-ray"}}]
        assert not [item for item in container["env"] if re.search("KEY|TOKEN|SECRET|PASSWORD", item["name"])]
        assert container["resources"]["requests"] == container["resources"]["limits"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert json.loads(json.loads(driver["rayStartParams"]["resources"]))["driver"] >= 1
    assert driver["minReplicas"] == 1
    assert gpu["minReplicas"] == gpu["replicas"] == 0
    assert gpu["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    mounted = gpu["template"]["spec"]["containers"][0]["volumeMounts"][0]["mountPath"]
    assert gpu["rayStartParams"]["object-spilling-directory"] == mounted


def test_working_folder_that_travels_is_the_code_and_small(tmp_path: Path) -> None:
    create_package(str(ROOT), tmp_path / "sent.zip", include_gitignore=True, excludes=[".git", ".venv", "__pycache__"])
    with zipfile.ZipFile(tmp_path / "sent.zip") as package:
        sent = {Path(name) for name in package.namelist()}
    assert {Path("jobs/train.py"), Path("qa_ray/cli/console.py"), Path("qa_ray/pages/report.css")} <= sent
    tops = {path.parts[0] for path in sent}
    left_here = {"tests", "docs", "site", "runs", "mlruns", "mlartifacts", "mlflow.db", ".venv", ".git", "cluster.env"}
    assert not tops & left_here
    assert (tmp_path / "sent.zip").stat().st_size < 2_000_000
