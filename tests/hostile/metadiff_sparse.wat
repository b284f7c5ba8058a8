;; outcome: bad_output; tries: a metadiff of 1 TiB without a byte on disk
(func (export "_start")
  (call $must_work (call $open_to_write (global.get $scratch) (call $metadiff_name)))
  (call $must_work (call $fd_filestat_set_size (global.get $fd) (i64.const 1099511627776))))
