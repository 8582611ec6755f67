"""Bedrock's control plane, asked what a profile or prompt router stands for, with the wrapped client's means."""

import os
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from .core.equivalents import Equivalent, profile_equivalent, router_equivalent
from .core.model_ids import ModelId, parse_model_id
from .stores.processes import WHOLE, PerProcess

CONNECT_SECS, READ_SECS = 1, 2
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class LookupFailed(Exception):
    """AWS did not say what an id stands for. The message says why, and what to do, for people."""


#: Asks what an id stands for. Raises LookupFailed.
LookUp = Callable[[ModelId], Equivalent]


def action_for(model: ModelId) -> str:
    """The IAM action that a lookup needs."""
    return "bedrock:GetPromptRouter" if model.kind == "prompt-router" else "bedrock:GetInferenceProfile"


class _Made:
    """A process's control-plane clients, one per region, and the credentials that they were made with."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.clients: dict[str | None, Any] = {}
        self.credentials: Any = None


class ControlPlane:
    """Makes ``bedrock`` clients beside a ``bedrock-runtime`` client, when they are first needed.

    ``client`` None: with boto3's own credentials. Its proxies, and endpoints of FIPS or dual stack, are taken over. A
    runtime client of a loopback address (`LocalBedrock`) has its control plane there too; all others are where botocore
    finds them (``AWS_ENDPOINT_URL_BEDROCK``).
    """

    def __init__(self, client: Any = None) -> None:
        self._runtime = client
        self._made = PerProcess(_Made)

    def look_up(self, model: ModelId) -> Equivalent:
        """What an id stands for. One request, two attempts. Raises LookupFailed."""
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - loaded with boto3

        action = action_for(model)
        try:
            client = self._client(model.region)
            if model.kind == "prompt-router":
                found = client.get_prompt_router(promptRouterArn=model.text)
                return router_equivalent(model, [each["modelArn"] for each in found["models"]])
            found = client.get_inference_profile(inferenceProfileIdentifier=model.text)
            if parse_model_id(found.get("inferenceProfileId", "")).profile is not None:  # a system profile's own id
                return Equivalent((found["inferenceProfileId"],), model.region)
            return profile_equivalent(model, [each["modelArn"] for each in found["models"]])
        except ClientError as exc:
            raise LookupFailed(_refusal(exc, action, model.text)) from exc
        except (BotoCoreError, OSError) as exc:
            raise LookupFailed(f"{action} failed ({exc}); check credentials, region and network") from exc
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise LookupFailed(f"the answer of {action} is not understood: {exc}") from exc

    def _client(self, region: str | None) -> Any:
        made = self._made.get()
        credentials = self._credentials()  # may ask AWS for new ones
        with WHOLE, made.lock:
            if credentials != made.credentials:  # they have been renewed
                made.credentials = credentials
                made.clients = {}
            if region not in made.clients:
                made.clients[region] = self._make(region, credentials)
            return made.clients[region]

    def _credentials(self) -> Any:
        """What the runtime client signs with just now, so that a client of another account or role is asked about by
        that account or role. None: boto3's own are used."""
        # There is no public way to them; where botocore has none of this name, its own search for credentials serves.
        get: Any = getattr(self._runtime, "_get_credentials", None)
        found: Any = None if get is None else get()
        return None if found is None else found.get_frozen_credentials()

    def _make(self, region: str | None, credentials: Any) -> Any:
        from boto3.session import Session  # noqa: PLC0415 - a program without such ids needs none
        from botocore.config import Config  # noqa: PLC0415

        config = Config(
            connect_timeout=CONNECT_SECS, read_timeout=READ_SECS, retries={"total_max_attempts": 2, "mode": "standard"}
        )
        meta: Any = None if self._runtime is None else self._runtime.meta
        settings: dict[str, Any] = {"region_name": region or getattr(meta, "region_name", None)}
        if meta is not None:
            taken = ("proxies", "proxies_config", "use_fips_endpoint", "use_dualstack_endpoint", "client_cert")
            given = {name: getattr(meta.config, name, None) for name in taken}
            config = config.merge(Config(**{name: value for name, value in given.items() if value is not None}))
            if urlsplit(str(meta.endpoint_url)).hostname in _LOOPBACK and "AWS_ENDPOINT_URL_BEDROCK" not in os.environ:
                settings["endpoint_url"] = meta.endpoint_url
        if credentials is not None:
            settings["aws_access_key_id"] = credentials.access_key
            settings["aws_secret_access_key"] = credentials.secret_key
            settings["aws_session_token"] = credentials.token
        session: Any = Session()  # of its own: boto3's default one must not be used by several threads
        return session.client("bedrock", config=config, **settings)


def _refusal(exc: Any, action: str, arn: str) -> str:
    error: dict[str, str] = exc.response.get("Error", {})
    code, message = error.get("Code", ""), error.get("Message", "")
    if code in ("AccessDeniedException", "AccessDenied", "UnauthorizedException"):
        return f"allow {action} on {arn} in IAM ({message})"
    if code == "ResourceNotFoundException":
        return f"{action} does not know it: {message}"
    return f"{action} failed: {code}: {message}"
