{{- define "millrace.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What selects the pods of a part; takes (dict "root" . "part" "operator"). */}}
{{- define "millrace.selector" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end -}}

{{- define "millrace.labels" -}}
{{ include "millrace.selector" . }}
app.kubernetes.io/part-of: millrace
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{/* An image; takes (dict "image" .Values.image "version" .Chart.AppVersion). */}}
{{- define "millrace.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ default .version .image.tag }}
{{- end -}}
{{- end -}}

{{- define "millrace.brokerSecret" -}}
{{- default (printf "%s-broker" (include "millrace.fullname" .)) .Values.nats.existingSecret -}}
{{- end -}}

{{- define "millrace.natsAuth" -}}
{{- if .Values.nats.auth -}}
{{ .Values.nats.auth }}
{{- else if and .Values.nats.url (not .Values.nats.existingSecret) -}}
none
{{- else -}}
jwt
{{- end -}}
{{- end -}}

{{- define "millrace.natsUrl" -}}
{{- default (printf "nats://%s-nats.%s.svc:4222" (include "millrace.fullname" .) .Release.Namespace) .Values.nats.url -}}
{{- end -}}

{{- define "millrace.natsMonitoringUrl" -}}
{{- if .Values.nats.url -}}
{{ .Values.nats.monitoringUrl }}
{{- else -}}
{{ printf "http://%s-nats-headless.%s.svc:8222" (include "millrace.fullname" .) .Release.Namespace }}
{{- end -}}
{{- end -}}

{{/* What every container of ours may do: nothing. */}}
{{- define "millrace.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "millrace.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* Spread over nodes where there are several; one node must do. Takes (dict "root" . "part" "gateway"). */}}
{{- define "millrace.affinity" -}}
podAntiAffinity:
  preferredDuringSchedulingIgnoredDuringExecution:
  - weight: 100
    podAffinityTerm:
      topologyKey: kubernetes.io/hostname
      labelSelector:
        matchLabels:
          {{- include "millrace.selector" . | nindent 10 }}
{{- end -}}

{{/* Where pods of a part may run; takes its values. */}}
{{- define "millrace.scheduling" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{/* The probes of our own roles. Not alive means hanging, never that something else is away. */}}
{{- define "millrace.probes" -}}
readinessProbe:
  httpGet: {path: /readyz, port: admin}
  periodSeconds: 2
  timeoutSeconds: 2
livenessProbe:
  httpGet: {path: /livez, port: admin}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
{{- end -}}
