# vmagent.sh
vmagent \
  -promscrape.config=/etc/vmagent/scrape.yml \
  -remoteWrite.url=https://metrics.example.com/api/v1/push \
  -remoteWrite.basicAuth.username=hub-17 \
  -remoteWrite.basicAuth.passwordFile=/etc/vmagent/device-key \
  -remoteWrite.forcePromProto \
  -remoteWrite.tmpDataPath=/var/lib/vmagent \
  -remoteWrite.maxDiskUsagePerURL=2GiB \
  -remoteWrite.queues=1 \
  -remoteWrite.retryMaxInterval=1m \
  -remoteWrite.label=hub=hub-17
