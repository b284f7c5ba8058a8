;; outcome: bad_output; tries: a metadiff that is a string
(data (i32.const 1024) "\"{}\"\00")
(func (export "_start")
  (call $put_metadiff (i32.const 1024)))
