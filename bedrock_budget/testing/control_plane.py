"""The part of Bedrock's control plane that says what ids stand for: GetInferenceProfile and GetPromptRouter."""

from collections.abc import Mapping, Sequence
from urllib.parse import unquote

from ..core.model_ids import parse_model_id
from .answer import Json
from .exchange import Request

_CREATED = "2026-01-15T12:00:00Z"
_OPERATIONS = {"inference-profiles": "GetInferenceProfile", "prompt-routers": "GetPromptRouter"}


def lookup_of(method: str, path: str, headers: Mapping[str, str]) -> Request | None:
    """The lookup that an HTTP request asks for, with the id as its model id; None if it is none."""
    resource, _, name = path.removeprefix("/").partition("/")
    operation = _OPERATIONS.get(resource)
    if method != "GET" or operation is None or not name:
        return None
    return Request(operation, unquote(name), None, headers)


def described(lookup: Request, models: Sequence[str]) -> Json:
    """The body of the reply to a lookup of something that has these models."""
    parsed = parse_model_id(lookup.model_id)
    name = lookup.model_id.rpartition("/")[2]
    listed = [{"modelArn": _arn(model, parsed.region)} for model in models]
    common: Json = {
        "description": "of LocalBedrock",
        "createdAt": _CREATED,
        "updatedAt": _CREATED,
        "models": listed,
        "status": "AVAILABLE" if lookup.operation == "GetPromptRouter" else "ACTIVE",
    }
    if lookup.operation == "GetPromptRouter":
        return {
            **common,
            "promptRouterName": name,
            "promptRouterArn": lookup.model_id,
            "routingCriteria": {"responseQualityDifference": 0.1},
            "fallbackModel": listed[-1],
            "type": "default" if "default-prompt-router" in lookup.model_id else "custom",
        }
    application = parsed.kind == "application-inference-profile"
    return {
        **common,
        "inferenceProfileName": name,
        "inferenceProfileArn": lookup.model_id,
        "inferenceProfileId": name,
        "type": "APPLICATION" if application else "SYSTEM_DEFINED",
    }


def _arn(model: str, region: str | None) -> str:
    return model if model.startswith("arn:") else f"arn:aws:bedrock:{region or 'us-east-1'}::foundation-model/{model}"
