"""`LocalBedrock` answers an unchanged boto3 ``bedrock`` client that asks what profiles and routers stand for."""

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError

from bedrock_budget.testing import LocalBedrock

PROFILE = "arn:aws:bedrock:eu-west-1:123456789012:application-inference-profile/1arbu5hu2sjr"
SYSTEM = "us.amazon.nova-lite-v1:0"
ROUTER = "arn:aws:bedrock:eu-west-1:123456789012:default-prompt-router/anthropic.claude:1"
CUSTOM = "arn:aws:bedrock:eu-west-1:123456789012:prompt-router/0123456789ab"
NOVA = "amazon.nova-lite-v1:0"
NOVA_ARN = f"arn:aws:bedrock:eu-west-1::foundation-model/{NOVA}"


@pytest.fixture
def control_plane(local_bedrock: LocalBedrock) -> Iterator[Any]:
    local_bedrock.inference_profiles = {PROFILE: [NOVA], SYSTEM: [NOVA_ARN]}
    local_bedrock.prompt_routers = {ROUTER: [NOVA, "amazon.nova-pro-v1:0"], CUSTOM: [NOVA_ARN]}
    client = boto3.client(
        "bedrock",
        endpoint_url=local_bedrock.url,
        region_name="us-east-1",
        aws_access_key_id="local",
        aws_secret_access_key="local",
        config=Config(proxies={}, retries={"total_max_attempts": 1}),
    )
    yield client
    client.close()


def test_inference_profiles(local_bedrock: LocalBedrock, control_plane: Any) -> None:
    found = control_plane.get_inference_profile(inferenceProfileIdentifier=PROFILE)
    assert found["models"] == [{"modelArn": NOVA_ARN}]
    assert (found["inferenceProfileArn"], found["inferenceProfileId"]) == (PROFILE, "1arbu5hu2sjr")
    assert (found["type"], found["status"]) == ("APPLICATION", "ACTIVE")
    found = control_plane.get_inference_profile(inferenceProfileIdentifier=SYSTEM)
    assert (found["type"], found["inferenceProfileId"]) == ("SYSTEM_DEFINED", SYSTEM)
    assert len(local_bedrock.ledger) == 0


def test_prompt_routers(control_plane: Any) -> None:
    found = control_plane.get_prompt_router(promptRouterArn=ROUTER)
    assert found["models"][0] == {"modelArn": NOVA_ARN}
    assert (found["type"], found["status"], found["fallbackModel"]) == ("default", "AVAILABLE", found["models"][1])
    assert control_plane.get_prompt_router(promptRouterArn=CUSTOM)["type"] == "custom"


def test_what_goes_wrong(local_bedrock: LocalBedrock, control_plane: Any) -> None:
    with pytest.raises(ClientError, match=r"ResourceNotFoundException.*LocalBedrock has no nobody"):
        control_plane.get_inference_profile(inferenceProfileIdentifier="nobody")
    local_bedrock.fail_next(operation="GetInferenceProfile", model_id=PROFILE)
    with pytest.raises(ClientError, match="ThrottlingException"):
        control_plane.get_inference_profile(inferenceProfileIdentifier=PROFILE)
    local_bedrock.drop_next(operation="GetPromptRouter")
    with pytest.raises(ConnectionClosedError):
        control_plane.get_prompt_router(promptRouterArn=ROUTER)
    local_bedrock.raw_next(200, {"content-type": "application/json"}, b'{"status": "ACTIVE"}')
    assert control_plane.get_inference_profile(inferenceProfileIdentifier=PROFILE)["status"] == "ACTIVE"


def test_other_processes_may_set_them(local_bedrock: LocalBedrock, control_plane: Any) -> None:
    body = json.dumps({"inference_profiles": {"mine": [NOVA]}, "prompt_routers": {}}).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{local_bedrock.url}/_local/settings", body)) as reply:
        assert reply.status == 200
    found = control_plane.get_inference_profile(inferenceProfileIdentifier="mine")
    assert found["models"] == [{"modelArn": f"arn:aws:bedrock:us-east-1::foundation-model/{NOVA}"}]
    for wrong in ({"inference_profiles": []}, {"prompt_routers": {ROUTER: NOVA}}):
        with pytest.raises(ValueError, match="is an object with a list of models for each ARN"):
            local_bedrock.update(wrong)
