"""How the channel to the model server behaves while that goes and comes back: options of gRPC, each with its reason.

What they are worth is tried with real processes: ``python run.py chaos``.
"""

import json

# A model server that is silent while calls wait for it is pinged, and given up when it does not even answer that: a
# process that is stopped, or a machine that is cut off, still looks like an open connection. The two together leave
# half of the usual deadline for the second attempt. Servers end connections that ping too much (gRPC's default, and
# so TensorFlow Serving's: a fourth ping within 5 minutes in which they sent nothing); so there is none without a call,
# and the library's own limit of two with nothing sent in between (grpc.http2.max_pings_without_data) stays.
PING_AFTER_MS = 2000
PING_TIMEOUT_MS = 3000
# For as long a connection may take to be made. A stopped server's port is still open, so that without this every call
# would be held up by it for 20 s, gRPC's default.
CONNECT_TIMEOUT_MS = 2000

# How gRPC itself shares the calls out and tries once more, within the call's deadline: UNAVAILABLE says that the model
# server has not begun with it, or that the connection broke, and a prediction asked for twice does no harm.
SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    # A server that says of itself that it is not well gets no calls; one that has no such service is taken for well.
    # That is TensorFlow Serving, unless it was started with --enable_grpc_healthcheck_service: then give it
    # --grpc_channel_arguments=grpc.max_connection_age_ms=30000 too. The look at its health counts as a call, and with
    # pings on a connection that is idle for minutes it would find them too many, and end it under the next call, which
    # is sent once more.
    "healthCheckConfig": {"serviceName": ""},
    "methodConfig": [
        {
            "name": [
                {"service": "tensorflow.serving.PredictionService"},
                # Without it, the loss of one of two could turn /readyz for a moment.
                {"service": "tensorflow.serving.ModelService"},
            ],
            "retryPolicy": {
                "maxAttempts": 2,
                "initialBackoff": "0.05s",
                "maxBackoff": "0.2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}


def channel_target(host: str, port: int) -> str:
    """Every address behind the name, asked anew when one fails: what is away is left out, what comes back is found."""
    return f"dns:///{host}:{port}"


def channel_options(max_message_bytes: int) -> list[tuple[str, str | int]]:
    """The options of a channel on which no message is over ``max_message_bytes``, either way."""
    return [
        ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
        ("grpc.dns_min_time_between_resolutions_ms", 1000),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        # What may be sent again has to be kept until then. gRPC keeps 256 KiB, a picture of float32 is more.
        ("grpc.per_rpc_retry_buffer_size", max_message_bytes),
        ("grpc.keepalive_time_ms", PING_AFTER_MS),
        ("grpc.keepalive_timeout_ms", PING_TIMEOUT_MS),
        # Of the two it is this one that counts; unset, it is a minute.
        ("grpc.http2.ping_timeout_ms", PING_TIMEOUT_MS),
        ("grpc.min_reconnect_backoff_ms", CONNECT_TIMEOUT_MS),
        # After a restart of the model server the next request must not wait for gRPC's usual two minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
        # A proxy in the environment is meant for the web, never for the neighbour on the internal network.
        ("grpc.enable_http_proxy", 0),
    ]
