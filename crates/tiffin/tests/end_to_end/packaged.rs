//! Services as Debian packages them: their own units, generators and tmpfiles.d, and nothing
//! said about them in the recipe.

use crate::build::Small;
use crate::harness::*;
use crate::steps::built;

const SERVICES: [&str; 9] = [
    "apache2",
    "cron",
    "memcached",
    "mosquitto",
    "nginx",
    "php8.2-fpm",
    "postgresql@15-main",
    "redis-server",
    "ssh",
];

const TASKS: &str = r#"
    - apt:
        name: [apache2, cron, memcached, mosquitto, mosquitto-clients, nginx-light, openssh-client,
          openssh-server, php8.2-fpm, postgresql, redis-server]
        install_recommends: false
        update_cache: true
        cache_valid_time: 3600
    - name: Two web servers
      replace: {path: /etc/apache2/ports.conf, regexp: "^Listen 80$", replace: "Listen 127.0.0.1:8080"}
    - copy:
        dest: /etc/nginx/sites-available/default
        content: |
          server {
            listen 80;
            root /var/www/html;
            location /apache/ { proxy_pass http://127.0.0.1:8080/; }
            location ~ \.php$ {
              include fastcgi_params;
              fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;
              fastcgi_pass unix:/run/php/php8.2-fpm.sock;
            }
          }
    - copy: {dest: /var/www/html/answer.php, content: "<?php echo get_current_user(), 6 * 7;"}
    - copy: {dest: /var/www/html/hello.txt, content: "hello"}
    - copy: {dest: /etc/cron.d/once, content: "@reboot root id -un > /run/by-cron\n"}
    # No image holds a host key, and no package makes one at start.
    - file: {path: /etc/systemd/system/ssh.service.d, state: directory}
    - copy:
        dest: /etc/systemd/system/ssh.service.d/keys.conf
        content: |
          [Service]
          ExecStartPre=
          ExecStartPre=/usr/bin/ssh-keygen -A
          ExecStartPre=/usr/sbin/sshd -t
    - systemd: {name: "{{ item }}", enabled: true, state: started}
      loop: [apache2, cron, memcached, mosquitto, nginx, php8.2-fpm, postgresql, redis-server, ssh]
"#;

#[test]
#[ignore = "needs a baked box: make test-e2e"]
fn units_of_debians_packages_run_as_they_are() {
    let small = Small::new(TASKS);
    let recipe = "name: test/packaged\nplaybook: site.yml\n";
    small.write("tiffin.yaml", recipe);
    built(&small);
    let archive = small.dist().join("packaged-v1.tar");
    let loaded = Loaded::new(&archive, "test/packaged:v1");
    let running = Container::of(&loaded.image, &[]);
    running.until_healthy();

    let status = must(&mut running.exec(&["tiffin", "status", "--json"]));
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let ready: Vec<&str> = status["services"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|service| service["ready"] == true)
        .map(|service| service["name"].as_str().unwrap())
        .collect();
    for name in SERVICES {
        assert!(
            ready.contains(&name),
            "{name}: {status:#}\n{}",
            running.logs()
        );
    }

    // Each does what it is for.
    let shell = |script: &str| must(&mut running.exec(&["bash", "-ec", script]));
    assert_eq!(running.get("/apache/hello.txt"), (200, "hello".to_owned()));
    assert_eq!(running.get("/answer.php"), (200, "root42".to_owned()));
    assert_eq!(shell("redis-cli set a b; redis-cli get a"), "OK\nb");
    let sql = "create table t (a int); insert into t values (6), (7); select sum(a) from t";
    assert!(shell(&format!("su postgres -c \"psql -tAc '{sql}'\"")).ends_with("13"));
    let memcached = "exec 3<>/dev/tcp/127.0.0.1/11211; printf 'set a 0 0 2\\r\\nhi\\r\\nget a\\r\\nquit\\r\\n' >&3; cat <&3";
    assert!(shell(memcached).contains("VALUE a 0 2\r\nhi"));
    let mosquitto = "mosquitto_pub -r -t t -m word; mosquitto_sub -W 10 -C 1 -t t";
    assert_eq!(shell(mosquitto), "word");
    assert!(within(std::time::Duration::from_secs(20), || {
        let read = output(&mut running.exec(&["cat", "/run/by-cron"]));
        read.stdout == b"root\n"
    }));
    let ssh = "mkdir -p -m 700 ~/.ssh; ssh-keygen -q -N '' -f ~/.ssh/id_ed25519; \
        cp ~/.ssh/id_ed25519.pub ~/.ssh/authorized_keys; \
        ssh -o StrictHostKeyChecking=no root@127.0.0.1 'echo by ssh as $(id -un)' 2>/dev/null";
    assert_eq!(shell(ssh), "by ssh as root");

    // Scripts on a Debian host ask like this.
    assert_eq!(
        shell("systemctl is-active postgresql ssh"),
        "active\nactive"
    );
    assert_eq!(
        shell("systemctl reload nginx; service apache2 status >/dev/null; echo ok"),
        "ok"
    );
    shell("systemctl restart postgresql; su postgres -c 'pg_isready -t 20'");

    must(&mut docker(&["stop", "--time", "60", &running.name]));
    let ended = running.wait(std::time::Duration::from_secs(1));
    let logs = running.logs();
    assert_eq!(ended, 0, "{logs}");
    assert!(!logs.contains("was killed"), "{logs}");
}
