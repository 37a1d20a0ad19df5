"""Jobs as OpenTelemetry traces: a span per job, rollout, phase, model call and tool call, sent over OTLP."""
