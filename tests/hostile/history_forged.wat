;; outcome: succeeded; tries: to put a history and foreign keys into its metadiff
(data (i32.const 1024) "{\"history\": [{\"status\": \"forged\"}], \"__proto__\": {\"x\": 1}, \"outcome\": \"forged\", \"\\u001b[2J\": \"{0} %s\"}\00")
(func (export "_start")
  (call $put_metadiff (i32.const 1024)))
