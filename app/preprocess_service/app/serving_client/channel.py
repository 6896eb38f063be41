"""The gRPC options of the channel to the model server, each with its reason: retries, keepalive, reconnects.

``python run.py chaos`` tests them with real processes.
"""

import json

# If the model server sends nothing while calls wait for it, gRPC pings it, and closes the connection if the ping is not
# answered. Without pings, a stopped process or a machine that lost its network looks like an open connection. Both
# times together leave half of the default deadline for the second attempt. Servers close connections that ping too
# often (by default of gRPC, and so of TensorFlow Serving: at the fourth ping within 5 minutes in which they sent
# nothing). So there are no pings without a call, and gRPC's limit of two pings with nothing sent in between
# (grpc.http2.max_pings_without_data) stays.
PING_AFTER_MS = 2000
PING_TIMEOUT_MS = 3000
# The time limit for a new connection. The port of a stopped server is still open: without this limit every call would
# wait 20 s for it, gRPC's default.
CONNECT_TIMEOUT_MS = 2000

# gRPC balances the calls and retries once, within the call's deadline. UNAVAILABLE means that the model server has not
# started the call, or that the connection broke. A prediction can be repeated safely.
SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    # A server that reports itself as unhealthy gets no calls. A server without the health service counts as healthy.
    # TensorFlow Serving has that service only with --enable_grpc_healthcheck_service. Then it also needs
    # --grpc_channel_arguments=grpc.max_connection_age_ms=30000: the health watch counts as a call, so there are pings
    # on a connection that is idle for minutes. The server would count too many pings and close the connection during
    # the next call, which gRPC then retries.
    "healthCheckConfig": {"serviceName": ""},
    "methodConfig": [
        {
            "name": [
                {"service": "tensorflow.serving.PredictionService"},
                # Without retries here, the loss of one of two servers could change /readyz for a moment.
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
    """Return a target that covers all addresses of the name. gRPC resolves it again when an address fails."""
    return f"dns:///{host}:{port}"


def channel_options(max_message_bytes: int) -> list[tuple[str, str | int]]:
    """Return the options of a channel that limits messages to ``max_message_bytes`` in both directions."""
    return [
        ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
        ("grpc.dns_min_time_between_resolutions_ms", 1000),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        # A request is kept for the retry. gRPC's default is 256 KiB; a float32 picture is larger.
        ("grpc.per_rpc_retry_buffer_size", max_message_bytes),
        ("grpc.keepalive_time_ms", PING_AFTER_MS),
        ("grpc.keepalive_timeout_ms", PING_TIMEOUT_MS),
        # Of the two timeouts this one takes effect; its default is one minute.
        ("grpc.http2.ping_timeout_ms", PING_TIMEOUT_MS),
        ("grpc.min_reconnect_backoff_ms", CONNECT_TIMEOUT_MS),
        # After a restart of the model server the next request must not wait for gRPC's usual two minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
        # A proxy in the environment is for the web, not for a service on the internal network.
        ("grpc.enable_http_proxy", 0),
    ]
