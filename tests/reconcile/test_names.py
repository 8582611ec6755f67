"""Names of bills: those that public price lists and bills show, and those that no rule may join."""

from decimal import Decimal

import pytest

from bedrock_budget.reconcile.names import OTHER, ModelNames, kind_of, tokens_of

MODELS = (
    "amazon.nova-pro-v1:0",
    "amazon.nova-2-lite-v1:0",
    "amazon.nova-canvas-v1:0",
    "amazon.titan-embed-text-v2:0",
    "us.anthropic.claude-haiku-4-5-20251001-v1:0",
    "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
    "anthropic.claude-3-5-sonnet-20240620-v1:0",
    "anthropic.claude-3-5-sonnet-20241022-v2:0",
    "us.meta.llama3-3-70b-instruct-v1:0",
    "zai.glm-5",
    "moonshotai.kimi-k2.5",
)
HAIKU = "anthropic.claude-haiku-4-5-20251001-v1:0"
MARKET = "USE1-MP:USE1_{}-Units"


@pytest.mark.parametrize(
    ("product", "usage_type", "model", "kind"),
    [
        ("Amazon Bedrock", "APN1-NovaPro-input-tokens", "amazon.nova-pro-v1:0", "input"),
        ("Amazon Bedrock", "USE1-NovaPro-input-tokens-flex", "amazon.nova-pro-v1:0", "input"),
        ("Amazon Bedrock", "USE1-NovaPro-output-tokens-long-context-cross-region-global", MODELS[0], "output"),
        ("Amazon Bedrock", "APN1-NovaPro-cache-read-input-token-count", "amazon.nova-pro-v1:0", "cache_read"),
        ("Amazon Bedrock", "APN1-NovaPro-cache-write-input-token-count", MODELS[0], "cache_write_5m"),
        ("Amazon Bedrock", "APN1-NovaPro-cache-write-1h-input-token-count", MODELS[0], "cache_write_1h"),
        ("Amazon Bedrock", "USE1-Nova2.0Lite-input-tokens", "amazon.nova-2-lite-v1:0", "input"),
        ("Amazon Bedrock", "USE1-TitanEmbeddingV2-Text-input-tokens", "amazon.titan-embed-text-v2:0", "input"),
        ("Amazon Bedrock", "USE1-Llama3-3-70B-output-tokens", "meta.llama3-3-70b-instruct-v1:0", "output"),
        ("Amazon Bedrock", "APN1-zai.glm5-mantle-input-tokens-standard", "zai.glm-5", "input"),
        ("Amazon Bedrock", "USE1-moonshotai.kimi-k2.5-mantle-output-tokens-standard", "moonshotai.kimi-k2.5", "output"),
        ("Amazon Bedrock", "USE1-NovaCanvas-T2I-1024-Standard", "amazon.nova-canvas-v1:0", OTHER),
        ("Claude Haiku 4.5 (Amazon Bedrock Edition)", MARKET.format("InputTokenCount"), HAIKU, "input"),
        ("Claude Haiku 4.5 (Amazon Bedrock Edition)", MARKET.format("OutputTokenCount_Global"), HAIKU, "output"),
        ("Claude Haiku 4.5 (Amazon Bedrock Edition)", MARKET.format("CacheReadInputTokenCount"), HAIKU, "cache_read"),
        (
            "Claude Haiku 4.5 (Amazon Bedrock Edition)",
            MARKET.format("CacheWrite1hInputTokenCount_Global"),
            HAIKU,
            "cache_write_1h",
        ),
        (
            "Claude Haiku 4.5 (Amazon Bedrock Edition)",
            MARKET.format("cache_write_tokens_1h_global_standard"),
            HAIKU,
            "cache_write_1h",
        ),
        ("Claude 3.5 Sonnet (Amazon Bedrock Edition)", MARKET.format("MillionInputTokens"), MODELS[6], "input"),
        ("Claude 3.5 Sonnet v2 (Amazon Bedrock Edition)", MARKET.format("MillionResponseTokens"), MODELS[7], "output"),
        ("Claude 4.5 Sonnet (Amazon Bedrock Edition)", MARKET.format("input_tokens_standard"), MODELS[5][3:], "input"),
        # What is no label's keeps its name.
        ("Amazon Bedrock", "USE1-Nova2.0Pro-input-tokens", "Nova2.0Pro", "input"),
        ("Amazon Bedrock", "USE1-NovaPro-input-tokens-batch", "NovaPro (batch)", "input"),
        (
            "Amazon Bedrock",
            "USE1-NovaCanvas-T2I-1024-Standard-batch",
            "NovaCanvas-T2I-1024-Standard-batch (batch)",
            OTHER,
        ),
        ("Amazon Bedrock", "USE1-Guardrail-ContentPolicyUnitsConsumed", "Guardrail-ContentPolicyUnitsConsumed", OTHER),
        ("Amazon Bedrock", "APS7-NovaPro-Reserved_1Month_InputTPM_Geo-Units", "amazon.nova-pro-v1:0", OTHER),
        ("", "USE1-MP:USE1_InputTokenCount-Units", "USE1-MP:USE1_InputTokenCount-Units", "input"),
    ],
)
def test_a_line_is_of_the_model_with_the_same_words(product: str, usage_type: str, model: str, kind: str) -> None:
    assert ModelNames(MODELS, {}).of_line(product, usage_type) == model
    assert kind_of(usage_type) == kind


def test_a_resource_says_which_model_a_line_is_of() -> None:
    opaque = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abcdefghijkl"
    names = ModelNames([*MODELS, opaque], {})
    line = ("Amazon Bedrock", "USE1-NovaPro-input-tokens")
    assert names.of_line(*line, opaque) == opaque
    profile = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-haiku-4-5-20251001-v1:0"
    assert names.of_line(*line, profile) == HAIKU
    assert names.of_line(*line, "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-lite-v1:0") == MODELS[0]
    assert names.of_line(line[0], line[1] + "-batch", opaque) == "NovaPro (batch)"


def test_aliases_are_for_names_and_for_ids() -> None:
    opaque = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abcdefghijkl"
    names = ModelNames(MODELS, {"R1": "us.deepseek.r1-v1:0", opaque: "amazon.nova-pro-v1:0"})
    assert names.of_line("Amazon Bedrock", "USE1-R1-input-tokens") == "deepseek.r1-v1:0"
    assert names.of_id(opaque) == "amazon.nova-pro-v1:0"
    assert names.of_id("us.deepseek.r1-v1:0") == "deepseek.r1-v1:0"


@pytest.mark.parametrize(
    ("amount", "unit", "usage_type", "tokens"),
    [
        ("0.123", "1K tokens", "x", 123),
        ("0.000123", "Units", "x", 123),
        ("0.000123", "1M tokens", "x", 123),
        ("123", "tokens", "x", 123),
        ("0.123", "N/A", "USE1-NovaPro-input-tokens", 123),
        ("0.000123", "N/A", "USE1-MP:USE1_InputTokenCount-Units", 123),
        ("0.0001225", "Units", "x", 123),  # half a token, of a sum that was rounded
    ],
)
def test_amounts_are_in_their_unit(amount: str, unit: str, usage_type: str, tokens: int) -> None:
    assert tokens_of(Decimal(amount), unit, usage_type) == tokens
