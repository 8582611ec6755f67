"""What a model id says by its form: every form that the runtime API takes, and the body format of each family."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedrock_budget.core.model_ids import PROFILE_PREFIXES, PROVIDERS, ModelId, parse_model_id, request_format

CLAUDE = "anthropic.claude-sonnet-4-5-20250929-v1:0"
ACCOUNT = "123456789012"

NAMED = [
    # bare ids: with version, without, with dots in the name
    (CLAUDE, CLAUDE, None, None),
    ("anthropic.claude-sonnet-5", "anthropic.claude-sonnet-5", None, None),
    ("anthropic.claude-v2:1", "anthropic.claude-v2:1", None, None),
    ("amazon.titan-tg1-large", "amazon.titan-tg1-large", None, None),
    ("mistral.mistral-7b-instruct-v0:2", "mistral.mistral-7b-instruct-v0:2", None, None),
    ("openai.gpt-oss-120b-1:0", "openai.gpt-oss-120b-1:0", None, None),
    ("moonshotai.kimi-k2.5", "moonshotai.kimi-k2.5", None, None),
    ("zai.glm-4.7-flash", "zai.glm-4.7-flash", None, None),
    ("deepseek.v3.2", "deepseek.v3.2", None, None),
    # context suffixes
    ("anthropic.claude-v2:1:200k", "anthropic.claude-v2:1", None, None),
    ("amazon.nova-lite-v1:0:300k", "amazon.nova-lite-v1:0", None, None),
    ("amazon.nova-premier-v1:0:1000k", "amazon.nova-premier-v1:0", None, None),
    ("amazon.nova-premier-v1:0:mm", "amazon.nova-premier-v1:0", None, None),
    ("amazon.titan-embed-text-v2:0:8k", "amazon.titan-embed-text-v2:0", None, None),
    ("cohere.embed-english-v3:0:512", "cohere.embed-english-v3:0", None, None),
    ("us.amazon.nova-lite-v1:0:300k", "amazon.nova-lite-v1:0", "us", None),
    # system inference profiles
    (f"us.{CLAUDE}", CLAUDE, "us", None),
    (f"eu.{CLAUDE}", CLAUDE, "eu", None),
    (f"apac.{CLAUDE}", CLAUDE, "apac", None),
    (f"jp.{CLAUDE}", CLAUDE, "jp", None),
    (f"au.{CLAUDE}", CLAUDE, "au", None),
    (f"ca.{CLAUDE}", CLAUDE, "ca", None),
    (f"sa.{CLAUDE}", CLAUDE, "sa", None),
    (f"us-gov.{CLAUDE}", CLAUDE, "us-gov", None),
    (f"global.{CLAUDE}", CLAUDE, "global", None),
    ("in.moonshotai.kimi-k3", "moonshotai.kimi-k3", "in", None),
    ("us.deepseek.v3.2", "deepseek.v3.2", "us", None),
    # ARNs that name the model
    (f"arn:aws:bedrock:us-east-1::foundation-model/{CLAUDE}", CLAUDE, None, "us-east-1"),
    (f"arn:aws:bedrock:::foundation-model/{CLAUDE}", CLAUDE, None, None),
    (f"arn:aws-us-gov:bedrock:us-gov-west-1::foundation-model/{CLAUDE}", CLAUDE, None, "us-gov-west-1"),
    (f"arn:aws:bedrock:eu-west-1::foundation-model/{CLAUDE}:200k", CLAUDE, None, "eu-west-1"),
    (f"arn:aws:bedrock:us-east-1:{ACCOUNT}:inference-profile/us.{CLAUDE}", CLAUDE, "us", "us-east-1"),
    (f"arn:aws:bedrock:eu-west-1:{ACCOUNT}:inference-profile/global.{CLAUDE}", CLAUDE, "global", "eu-west-1"),
    (f"arn:aws-cn:bedrock:cn-north-1:{ACCOUNT}:inference-profile/{CLAUDE}", CLAUDE, None, "cn-north-1"),
]

OPAQUE = [
    # ARNs that say where, not what
    (f"arn:aws:bedrock:us-east-1:{ACCOUNT}:application-inference-profile/1arbu5hu2sjr", "us-east-1"),
    (f"arn:aws:bedrock:us-west-2:{ACCOUNT}:provisioned-model/abcdef123456", "us-west-2"),
    (f"arn:aws:bedrock:us-east-1:{ACCOUNT}:prompt-router/my.router:1", "us-east-1"),
    (f"arn:aws:bedrock:us-east-1:{ACCOUNT}:default-prompt-router/anthropic.claude:1", "us-east-1"),
    (f"arn:aws:bedrock:us-east-1:{ACCOUNT}:custom-model/{CLAUDE}/abcdef123456", "us-east-1"),
    (f"arn:aws:bedrock:us-east-1:{ACCOUNT}:custom-model-deployment/abcdef123456", "us-east-1"),
    (f"arn:aws:bedrock:us-east-1:{ACCOUNT}:imported-model/abcdef123456", "us-east-1"),
    (f"arn:aws:bedrock:us-east-1:{ACCOUNT}:prompt/ABCDE12345:1", "us-east-1"),
    (f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:endpoint/my-endpoint", "us-east-1"),
    (f"arn:aws:bedrock:us-east-1:{ACCOUNT}:inference-profile/nameless", "us-east-1"),
    ("arn:aws:bedrock", None),
    # names of the account's own
    ("my-provisioned-model", None),
    ("does-not-exist-model-v1:0", None),
    ("us.my-model", None),
    ("", None),
]


def arn(resource: str, region: str = "us-east-1", service: str = "bedrock") -> str:
    return f"arn:aws:{service}:{region}:{ACCOUNT}:{resource}"


@pytest.mark.parametrize(("text", "base", "profile", "region"), NAMED)
def test_an_id_that_names_its_model(text: str, base: str, profile: str | None, region: str | None) -> None:
    found = parse_model_id(text)
    assert found[:4] == ModelId(text, base, profile, region)[:4]
    assert found.kind == ("inference-profile" if profile or ":inference-profile/" in text else "model")
    assert found.account == (ACCOUNT if ACCOUNT in text else None)
    assert found.profile_kind == {None: "in-region", "global": "global"}.get(profile, "geographic")
    assert (found.price_kind, found.problem) == ("list", None)
    assert found.family == request_format(base)


@pytest.mark.parametrize(("text", "region"), OPAQUE)
def test_an_id_that_does_not_name_its_model_is_not_guessed(text: str, region: str | None) -> None:
    found = parse_model_id(text)
    assert found[:4] == (text, None, None, region)
    assert found.price_kind != "list"
    assert found.problem


#: kind, how it is priced, what its problem says
SPECIAL = [
    (arn("application-inference-profile/1arbu5hu2sjr"), "application-inference-profile", "profile", "only AWS knows"),
    (arn("inference-profile/tenant-a"), "inference-profile", "profile", "which model the profile is of"),
    (arn(f"inference-profile/xx.{CLAUDE}"), "inference-profile", "profile", "which model the profile is of"),
    (arn("prompt-router/my.router:1"), "prompt-router", "served", "known only afterwards"),
    (arn("default-prompt-router/anthropic.claude:1"), "prompt-router", "served", "known only afterwards"),
    (
        arn("provisioned-model/abcdef123456"),
        "provisioned-model",
        "hourly",
        "by the hour, not by the token; .* prices of 0",
    ),
    (arn(f"custom-model/{CLAUDE}/abcdef123456"), "custom-model", "hourly", "by the hour of its provisioned .* of 0"),
    (
        arn("custom-model-deployment/abcdef123456"),
        "custom-model-deployment",
        "unknown",
        "prices of that model's custom",
    ),
    (arn("imported-model/abcdef123456"), "imported-model", "hourly", "Custom Model Units .* prices of 0"),
    (arn("prompt/ABCDE12345"), "prompt", "unknown", "does not say which model it was made for"),
    (arn("prompt/ABCDE12345:1"), "prompt", "unknown", "give the prices of that model"),
    (arn("endpoint/my-endpoint", service="sagemaker"), "sagemaker-endpoint", "hourly", "instance hours.* prices of 0"),
    ("my-provisioned_model", "name", "unknown", "a bare name .* use its ARN"),
    (f"xx.{CLAUDE}", "inference-profile", "unknown", r"unknown inference profile prefix 'xx' \(known: apac, au,.*ARN"),
    (f"mars.{CLAUDE}", "inference-profile", "unknown", "prefix 'mars'"),
    (f"use.{CLAUDE}", "inference-profile", "unknown", "prefix 'use'"),
    (arn("flow/ABCDE12345"), "unknown", "unknown", "no form of modelId that is known"),
    (arn("foundation-model/nameless"), "unknown", "unknown", "no form of modelId that is known"),
    ("arn:aws:bedrock", "unknown", "unknown", "no form of modelId that is known"),
    ("two words", "unknown", "unknown", "no form of modelId that is known"),
]


@pytest.mark.parametrize(("text", "kind", "price_kind", "problem"), SPECIAL)
def test_an_id_that_has_no_price_of_its_own_says_why(text: str, kind: str, price_kind: str, problem: str) -> None:
    found = parse_model_id(text)
    assert (found.base, found.kind, found.price_kind) == (None, kind, price_kind)
    assert found.profile_kind == ("application" if kind.startswith("application") else None)
    assert re.search(problem, found.problem or "")


def test_names_with_dots_are_not_taken_for_prefixes() -> None:
    for provider in PROVIDERS:
        found = parse_model_id(f"{provider}.model-4.7-flash")
        assert (found.base, found.prefix) == (f"{provider}.model-4.7-flash", None)
    assert parse_model_id("newco.model-1.2").base == "newco.model-1.2"
    assert parse_model_id(f"xx.{CLAUDE}").prefix == "xx"


def test_a_custom_model_takes_the_bodies_of_the_model_it_was_made_from() -> None:
    assert parse_model_id(arn("custom-model/amazon.nova-lite-v1:0:300k/abcdef123456")).family == "amazon-nova"
    nameless = arn("custom-model/mine/abcdef123456")
    assert parse_model_id(nameless).family is None
    assert request_format(nameless) == nameless


@given(st.text())
def test_any_text_is_taken_apart_without_an_error(text: str) -> None:
    for given_text in (text, "arn:" + text, "arn:aws:bedrock:" + text):
        found = parse_model_id(given_text)
        assert found.text == given_text
        assert (found.problem is None) == (found.base is not None) == (found.price_kind == "list")


@given(st.sampled_from(PROFILE_PREFIXES))
def test_a_prefix_changes_nothing_but_the_profile(prefix: str) -> None:
    found = parse_model_id(f"{prefix}.{CLAUDE}")
    assert found.profile == prefix
    assert found._replace(text=CLAUDE, profile=None, kind="model") == parse_model_id(CLAUDE)


FORMATS = [
    ("anthropic.claude-v1", "anthropic-completions"),
    ("anthropic.claude-v2", "anthropic-completions"),
    ("anthropic.claude-v2:1:200k", "anthropic-completions"),
    ("anthropic.claude-instant-v1", "anthropic-completions"),
    ("anthropic.claude-3-haiku-20240307-v1:0", "anthropic-messages"),
    (f"us.{CLAUDE}", "anthropic-messages"),
    (f"arn:aws:bedrock:us-east-1:{ACCOUNT}:inference-profile/us.{CLAUDE}", "anthropic-messages"),
    ("amazon.nova-pro-v1:0", "amazon-nova"),
    ("amazon.nova-premier-v1:0:1000k", "amazon-nova"),
    ("us.amazon.nova-2-lite-v1:0", "amazon-nova"),
    ("amazon.nova-2-pro-preview-20251202-v1:0", "amazon-nova"),
    ("amazon.nova-canvas-v1:0", "amazon.nova-canvas"),
    ("amazon.nova-reel-v1:1", "amazon.nova-reel"),
    ("amazon.nova-sonic-v1:0", "amazon.nova-sonic"),
    ("amazon.nova-2-sonic-v1:0", "amazon.nova-2-sonic"),
    ("amazon.nova-2-5-sonic", "amazon.nova-2-5-sonic"),
    ("amazon.nova-2-multimodal-embeddings-v1:0", "amazon.nova-2-multimodal-embeddings"),
    ("amazon.titan-text-express-v1", "amazon-titan-text"),
    ("amazon.titan-tg1-large", "amazon-titan-text"),
    ("amazon.titan-embed-text-v1", "amazon-titan-embed-text"),
    ("amazon.titan-embed-text-v2:0", "amazon-titan-embed-text"),
    ("amazon.titan-embed-g1-text-02", "amazon-titan-embed-text"),
    ("amazon.titan-embed-image-v1", "amazon.titan-embed-image"),
    ("amazon.titan-image-generator-v2:0", "amazon.titan-image-generator"),
    ("meta.llama2-13b-chat-v1", "meta-llama"),
    ("us.meta.llama4-maverick-17b-instruct-v1:0", "meta-llama"),
    ("mistral.mistral-7b-instruct-v0:2", "mistral-text"),
    ("mistral.mixtral-8x7b-instruct-v0:1", "mistral-text"),
    ("mistral.mistral-large-2402-v1:0", "mistral-text"),
    ("us.mistral.pixtral-large-2502-v1:0", "openai-chat"),
    ("mistral.mistral-large-3-675b-instruct", "openai-chat"),
    ("cohere.command-text-v14", "cohere-command"),
    ("cohere.command-light-text-v14", "cohere-command"),
    ("cohere.command-r-v1:0", "cohere-chat"),
    ("cohere.command-r-plus-v1:0", "cohere-chat"),
    ("cohere.embed-english-v3", "cohere-embed"),
    ("cohere.embed-v4:0", "cohere-embed"),
    ("cohere.rerank-v3-5:0", "cohere-rerank"),
    ("ai21.j2-mid-v1", "ai21-j2"),
    ("ai21.jamba-1-5-mini-v1:0", "openai-chat"),
    ("us.deepseek.r1-v1:0", "deepseek-completions"),
    ("deepseek.v3-v1:0", "openai-chat"),
    ("qwen.qwen3-32b-v1:0", "openai-chat"),
    ("openai.gpt-oss-120b-1:0", "openai-chat"),
    ("minimax.minimax-m2", "openai-chat"),
    ("moonshot.kimi-k2-thinking", "openai-chat"),
    ("moonshotai.kimi-k2.5", "openai-chat"),
    ("nvidia.nemotron-nano-12b-v2", "openai-chat"),
    ("google.gemma-3-27b-it", "openai-chat"),
    ("zai.glm-4.7-flash", "openai-chat"),
    # a family that is not known fits itself alone, whatever its profile
    ("us.writer.palmyra-x4-v1:0", "writer.palmyra-x4-v1:0"),
    # an id that does not say its model fits nothing but itself
    (
        f"arn:aws:bedrock:us-east-1:{ACCOUNT}:application-inference-profile/1arbu5hu2sjr",
        f"arn:aws:bedrock:us-east-1:{ACCOUNT}:application-inference-profile/1arbu5hu2sjr",
    ),
    ("my-provisioned-model", "my-provisioned-model"),
]


@pytest.mark.parametrize(("model_id", "expected"), FORMATS)
def test_request_format(model_id: str, expected: str) -> None:
    assert request_format(model_id) == expected
