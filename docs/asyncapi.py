"""The AsyncAPI 3.0 document of all topics, from structs and registry: what another language needs to join."""

from typing import Any

import msgspec

from topics.registry import TOPICS, Topic

ACTIONS = {
    "utterances": "receive",
    "links": "receive",
    "skills": "receive",
    "decisions": "send",
    "shadow-decisions": "send",
    "outcomes": "receive",
    "statistics": "send",
    "live-statistics": "send",
    "releases": "send",
    "dead-letters": "send",
    "redriven": "send",
}
"""As namefree sees them: what others send it, and what it sends."""

TRACE = {
    "type": "object",
    "properties": {"traceparent": {"type": "string", "description": "W3C trace context, passed through"}},
}


def document(version: str) -> dict[str, Any]:
    """The document as plain values. Topic names stand without a prefix."""
    _, schemas = msgspec.json.schema_components(
        [topic.event for topic in TOPICS], ref_template="#/components/schemas/{name}"
    )
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "namefree",
            "version": version,
            "description": "Chooses the skill for a request that names none. Keys are partitioned with murmur2.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {topic.name: _channel(topic) for topic in TOPICS},
        "operations": {f"{ACTIONS[topic.name]}-{topic.name}": _operation(topic) for topic in TOPICS},
        "components": {"messages": {_name(topic): _message(topic) for topic in TOPICS}, "schemas": schemas},
    }


def _name(topic: Topic) -> str:
    return topic.event.__name__


def _channel(topic: Topic) -> dict[str, Any]:
    retention = {"retention.ms": int(kept)} if (kept := topic.config.get("retention.ms")) else {}
    kafka: dict[str, Any] = {
        "topic": topic.name,
        "topicConfiguration": {"cleanup.policy": [topic.cleanup], **retention},
        "bindingVersion": "0.5.0",
    }
    if topic.partitions:
        kafka["partitions"] = topic.partitions
    return {
        "address": topic.name,
        "description": topic.note,
        "messages": {_name(topic): {"$ref": f"#/components/messages/{_name(topic)}"}},
        "bindings": {"kafka": kafka},
    }


def _operation(topic: Topic) -> dict[str, Any]:
    channel = f"#/channels/{topic.name}"
    return {
        "action": ACTIONS[topic.name],
        "channel": {"$ref": channel},
        "messages": [{"$ref": f"{channel}/messages/{_name(topic)}"}],
    }


def _message(topic: Topic) -> dict[str, Any]:
    return {
        "name": _name(topic),
        "summary": " ".join((topic.event.__doc__ or "").split()),
        "headers": TRACE,
        "payload": {"$ref": f"#/components/schemas/{_name(topic)}"},
        "bindings": {"kafka": {"key": {"type": "string", "description": topic.key}, "bindingVersion": "0.5.0"}},
    }
