"""The fields of a RayJob that jobs/rayjob.yaml uses, with their types and values, as a JSON schema.

From the field reference that KubeRay 1.6.2 generates of its types, the bounds that its operator checks, and Kubernetes
1.35's pods. KubeRay's own schema is a megabyte of pods; what is not listed here is refused: look it up there, and add
it.
"""

from typing import Any

Schema = dict[str, Any]


def _fields(*required: str, **known: Schema) -> Schema:
    return {"type": "object", "required": list(required), "properties": known, "additionalProperties": False}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _map(values: Schema) -> Schema:
    return {"type": "object", "additionalProperties": values}


def _one_of(*values: str) -> Schema:
    return {"enum": list(values)}


_TEXT = {"type": "string"}
_NAME = {"type": "string", "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$"}
_FLAG = {"type": "boolean"}
_COUNT = {"type": "integer", "minimum": 0}
_QUANTITIES = _map({"type": ["string", "integer"], "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|[MGTPE]|[KMGTPE]i)?$"})
_START = _map(_TEXT)  # numbers too: `ray start` has words
_CONTAINER = _fields(
    "name",
    name=_NAME,
    image=_TEXT,
    envFrom=_list(_fields("secretRef", secretRef=_fields("name", name=_NAME))),
    env=_list(_fields("name", "value", name=_TEXT, value=_TEXT)),
    resources=_fields(requests=_QUANTITIES, limits=_QUANTITIES),
    volumeMounts=_list(_fields("name", "mountPath", name=_NAME, mountPath=_TEXT)),
)
_POD = _fields(
    "containers",
    nodeSelector=_map(_TEXT),
    tolerations=_list(
        _fields(
            key=_TEXT,
            operator=_one_of("Exists", "Equal"),
            effect=_one_of("NoSchedule", "PreferNoSchedule", "NoExecute"),
        )
    ),
    terminationGracePeriodSeconds=_COUNT,
    containers={**_list(_CONTAINER), "minItems": 1},
    volumes=_list(_fields("name", "emptyDir", name=_NAME, emptyDir=_fields())),
)
_TEMPLATE = _fields("spec", spec=_POD)
_WORKERS = _fields(
    "groupName",
    "minReplicas",
    "maxReplicas",
    "template",
    groupName=_NAME,
    replicas=_COUNT,
    minReplicas=_COUNT,
    maxReplicas=_COUNT,
    rayStartParams=_START,
    template=_TEMPLATE,
)
_CLUSTER = _fields(
    "headGroupSpec",
    rayVersion=_TEXT,
    authOptions=_fields(mode=_one_of("disabled", "token")),
    enableInTreeAutoscaling=_FLAG,
    autoscalerOptions=_fields(idleTimeoutSeconds=_COUNT),
    headGroupSpec=_fields("template", rayStartParams=_START, template=_TEMPLATE),
    workerGroupSpecs=_list(_WORKERS),
)
RAYJOB = _fields(
    "apiVersion",
    "kind",
    "metadata",
    "spec",
    apiVersion=_one_of("ray.io/v1"),
    kind=_one_of("RayJob"),
    metadata=_fields("name", name=_NAME),
    spec=_fields(
        "rayClusterSpec",
        entrypoint=_TEXT,
        runtimeEnvYAML=_TEXT,
        entrypointResources=_TEXT,
        submissionMode=_one_of("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"),
        backoffLimit=_COUNT,
        shutdownAfterJobFinishes=_FLAG,
        ttlSecondsAfterFinished=_COUNT,
        rayClusterSpec=_CLUSTER,
    ),
)
