{{- define "egress.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- define "egress.metricsAddress" -}}
{{- if and .Values.podMonitor.enabled (eq .Values.metrics.address "127.0.0.1") -}}
[::]
{{- else -}}
{{ .Values.metrics.address }}
{{- end -}}
{{- end }}

{{- /* What the files of a folder say, one document after the other. */ -}}
{{- define "egress.crds" -}}
{{- range $path, $_ := .Files.Glob "files/crds/*.egress.rs.yaml" }}
---
{{ $document := $.Files.Get $path | fromYaml -}}
{{- if $.Values.crds.keep -}}
{{- $_ := set $document.metadata "annotations" (merge (dict "helm.sh/resource-policy" "keep") ($document.metadata.annotations | default dict)) -}}
{{- end -}}
{{ toYaml $document }}
{{- end }}
{{- end }}
