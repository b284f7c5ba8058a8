;; outcome: bad_output; tries: a second name of a file in the output in the place of the metadiff
(data (i32.const 1024) "shared\00")
(data (i32.const 1056) "{\"a\": 1}\00")
(func (export "_start")
  (call $must_work (call $put (global.get $out) (i32.const 1024) (i32.const 1056)))
  (drop (call $link (global.get $out) (i32.const 1024) (global.get $scratch) (call $metadiff_name))))
