{{/* Who calls whom. The network policies follow from it. */}}
{{- define "lab.calls" -}}
primary: [replica, log]
replica: [log]
client: [primary, replica, log]
worker: [primary, replica, client, log]
log: [log]
test: [client]
{{- end }}

{{- define "lab.ports" -}}
{primary: 8000, replica: 8001, client: 8003, worker: 8078}
{{- end }}

{{- define "lab.url" -}}
http://{{ .root.Values.name }}-{{ .role }}:{{ get (include "lab.ports" . | fromYaml) .role }}
{{- end }}

{{/* Labels that select the pods of one node or server: of ``id``; or of a component. */}}
{{- define "lab.selector" -}}
app.kubernetes.io/name: {{ .id }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end }}

{{- define "lab.component" -}}
app.kubernetes.io/component: {{ .role }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end }}

{{/* The value of part-of is Prometheus's job, which the rules and the dashboard select. */}}
{{- define "lab.labels" -}}
{{ include "lab.selector" . }}
app.kubernetes.io/component: {{ .role }}
app.kubernetes.io/part-of: lab
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{- define "lab.metadata" -}}
metadata:
  name: {{ .id }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "lab.labels" . | nindent 4 }}
{{- end }}

{{/* A secret value: of the chart's Secret, or of an existing one. */}}
{{- define "lab.secret" -}}
secretKeyRef: {name: {{ .existing | default .root.Values.name }}, key: {{ if .existing }}{{ .theirs }}{{ else }}{{ .ours }}{{ end }}}
{{- end }}

{{- define "lab.logPassword" -}}
{{ include "lab.secret" (dict "root" . "existing" .Values.log.sentinel.existingSecret "theirs" "password" "ours" "log-password") }}
{{- end }}

{{- define "lab.logHosts" -}}
{{- $name := printf "%s-redis" .Values.name -}}
{{- range $n := until (int .Values.log.sentinel.servers) }}{{ if $n }} {{ end }}{{ $name }}-{{ $n }}.{{ $name }}{{ end }}
{{- end }}

{{- define "lab.environment" -}}
{{- $root := .root -}}
{{- $values := .root.Values -}}
- {name: LAB_NAMESPACE, value: {{ $values.name }}}
- {name: LAB_NODE_ID, value: {{ .id }}}
- {name: LAB_PORT, value: {{ get (include "lab.ports" . | fromYaml) .role | quote }}}
{{- if $values.log.sentinel.enabled }}
- name: LOG_PASSWORD
  valueFrom: {{- include "lab.logPassword" $root | nindent 4 }}
- name: LAB_REDIS_URL
  value: redis+sentinel://:$(LOG_PASSWORD)@{{ include "lab.logHosts" $root | replace " " ":26379," }}:26379/{{ $values.name }}?sentinel_password=$(LOG_PASSWORD)
{{- else }}
- name: LAB_REDIS_URL
  valueFrom: {{- include "lab.secret" (dict "root" $root "existing" $values.log.existingSecret "theirs" "url" "ours" "log-url") | nindent 4 }}
{{- end }}
{{- if or $values.queue.url $values.queue.existingSecret }}
- name: LAB_QUEUE_URL
  valueFrom: {{- include "lab.secret" (dict "root" $root "existing" $values.queue.existingSecret "theirs" "url" "ours" "queue-url") | nindent 4 }}
{{- end }}
- {name: LAB_LOG_COPIES, value: {{ $values.log.copies | quote }}}
- {name: LAB_PRIMARY_URL, value: {{ include "lab.url" (dict "root" $root "role" "primary") | quote }}}
- {name: LAB_CLIENT_URL, value: {{ include "lab.url" (dict "root" $root "role" "client") | quote }}}
{{- with .delayMs }}
- {name: LAB_DELAY_MS, value: {{ . | quote }}}
{{- end }}
# Names in other namespaces; the lab accepts names such as {{ .id }} itself.
- {name: LAB_ALLOWED_HOSTS, value: {{ concat (list (printf "%s.%s" .id $root.Release.Namespace) (printf "%s.%s.svc" .id $root.Release.Namespace) (printf "%s.%s.svc.cluster.local" .id $root.Release.Namespace)) $values.allowedHosts | join "," | quote }}}
{{- with $values.allowedOrigins }}
- {name: LAB_ALLOWED_ORIGINS, value: {{ join "," . | quote }}}
{{- end }}
{{- if or $values.adminToken.value $values.adminToken.existingSecret }}
- name: LAB_ADMIN_TOKEN
  valueFrom: {{- include "lab.secret" (dict "root" $root "existing" $values.adminToken.existingSecret "theirs" "token" "ours" "admin-token") | nindent 4 }}
{{- end }}
{{- with $values.otlpEndpoint }}
- {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ . | quote }}}
{{- end }}
{{- end }}

{{- define "lab.podSecurity" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets: {{- range . }}
  - {name: {{ . }}}
{{- end }}
{{- end }}
{{- end }}

{{- define "lab.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  capabilities: {drop: [ALL]}
{{- end }}

{{- define "lab.image" -}}
image: "{{ .root.Values.image.repository }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}"
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
{{- end }}

{{/* A probe of a node. /metrics answers 200 as long as the process does; /health is 503 while the node is degraded. */}}
{{- define "lab.probe" -}}
httpGet: {path: {{ .path }}, port: http}
timeoutSeconds: 10
{{- end }}

{{/*
The pod of a node. ``starts`` and ``ready``: the paths of these probes.

A node that lost the log after it had started stays reachable: it answers with what is wrong, and a replica still answers
stale reads, which is what the lab shows. No probe restarts it for that: a restart mends no log.
*/}}
{{- define "lab.pod" -}}
metadata:
  labels: {{- include "lab.labels" . | nindent 4 }}
  annotations:
    checksum/secrets: {{ include "lab.secrets" .root | sha256sum }}
spec:
  {{- include "lab.podSecurity" . | nindent 2 }}
  terminationGracePeriodSeconds: 15
  containers:
    - name: {{ .role }}
      {{- include "lab.image" . | nindent 6 }}
      args: [{{ .role }}]
      env: {{- include "lab.environment" . | nindent 8 }}
      ports:
        - {name: http, containerPort: {{ get (include "lab.ports" . | fromYaml) .role }}}
      startupProbe:
        {{- include "lab.probe" (dict "path" .starts) | nindent 8 }}
        periodSeconds: 2
        failureThreshold: 150
      readinessProbe:
        {{- include "lab.probe" (dict "path" .ready) | nindent 8 }}
        periodSeconds: 5
      livenessProbe:
        {{- include "lab.probe" (dict "path" "/metrics") | nindent 8 }}
        periodSeconds: 15
        failureThreshold: 4
      # Until every node knows that this one leaves, it continues to answer.
      lifecycle: {preStop: {sleep: {seconds: 3}}}
      resources: {{- toYaml .root.Values.resources.node | nindent 8 }}
      {{- include "lab.containerSecurity" . | nindent 6 }}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}
        {{- if .data }}
        - {name: data, mountPath: /data}
        {{- end }}
  volumes:
    - {name: tmp, emptyDir: {sizeLimit: 64Mi}}
    {{- if eq .data "own" }}
    - {name: data, persistentVolumeClaim: {claimName: {{ .id }}}}
    {{- end }}
{{- end }}

{{- define "lab.claim" -}}
accessModes: [ReadWriteOnce]
{{- with .root.Values.storage.className }}
storageClassName: {{ . }}
{{- end }}
resources: {requests: {storage: {{ .size }}}}
{{- end }}

{{/* The chart's own secret values; empty if all are in existing Secrets. */}}
{{- define "lab.secrets" -}}
{{- $values := .Values -}}
{{- $found := dict -}}
{{- if and $values.log.sentinel.enabled (not $values.log.sentinel.existingSecret) }}{{ $_ := set $found "log-password" $values.log.sentinel.password }}{{ end -}}
{{- with $values.log.url }}{{ $_ := set $found "log-url" . }}{{ end -}}
{{- with $values.queue.url }}{{ $_ := set $found "queue-url" . }}{{ end -}}
{{- with $values.adminToken.value }}{{ $_ := set $found "admin-token" . }}{{ end -}}
{{- with $found }}{{ toYaml . }}{{ end -}}
{{- end }}

{{/* What the schema cannot say in a sentence. */}}
{{- define "lab.validate" -}}
{{- $log := .Values.log -}}
{{- $chosen := 0 -}}
{{- range list $log.url $log.existingSecret $log.sentinel.enabled }}{{ if . }}{{ $chosen = add1 $chosen }}{{ end }}{{ end -}}
{{- if ne (int $chosen) 1 }}{{ fail (printf "set one of log.url, log.existingSecret and log.sentinel.enabled; %d are set" (int $chosen)) }}{{ end -}}
{{- if and $log.sentinel.enabled (eq (empty $log.sentinel.password) (empty $log.sentinel.existingSecret)) }}{{ fail "log.sentinel.enabled requires a password: set one of log.sentinel.password and log.sentinel.existingSecret" }}{{ end -}}
{{- if and $log.sentinel.enabled (ge (int $log.copies) (int $log.sentinel.servers)) }}{{ fail (printf "log.copies is %d, but %d servers keep at most %d copies besides the first" (int $log.copies) (int $log.sentinel.servers) (sub (int $log.sentinel.servers) 1)) }}{{ end -}}
{{- if and (contains "+cluster://" $log.url) (not (or .Values.queue.url .Values.queue.existingSecret)) }}{{ fail "log.url is a Redis Cluster, on which the queue of experiments does not run: set queue.url or queue.existingSecret" }}{{ end -}}
{{- end }}
