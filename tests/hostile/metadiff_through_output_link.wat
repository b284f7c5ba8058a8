;; outcome: bad_output; tries: a link of the output in the place of the metadiff, moved there
(data (i32.const 1024) "../../../outside/secret\00")
(func (export "_start")
  (drop (call $symlink (i32.const 1024) (global.get $out) (call $metadiff_name)))
  (drop (call $rename (global.get $out) (call $metadiff_name) (global.get $scratch) (call $metadiff_name))))
