;; outcome: bad_output; tries: a link in the place of the metadiff that leads to an endless device
(data (i32.const 1024) "../../../../../../../../../../../../dev/zero\00")
(func (export "_start")
  (drop (call $symlink (i32.const 1024) (global.get $scratch) (call $metadiff_name))))
