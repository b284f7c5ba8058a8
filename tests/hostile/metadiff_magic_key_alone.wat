;; outcome: succeeded; tries: a metadiff that the JSON library could take for a number
(data (i32.const 1024) "{\"$serde_json::private::Number\": \"1\"}\00")
(func (export "_start")
  (call $put_metadiff (i32.const 1024)))
