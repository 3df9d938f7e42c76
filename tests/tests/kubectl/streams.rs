//! Streams between a terminal and a pod: exec, attach, port-forward.

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::Shell;
use crate::pods::{begin, pod};

async fn running(shell: &Shell, script: &str) -> anyhow::Result<()> {
    shell.write("pod.yaml", &pod("target", "app: a", script))?;
    shell.expect("kubectl apply -f pod.yaml").await?;
    shell.expect("kubectl wait pod/target --for=condition=Ready --timeout=60s").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_run_in_containers() -> anyhow::Result<()> {
    let Some((ground, shell)) = begin("exec").await? else { return Ok(()) };
    running(&shell, "exec sleep 1000").await?;
    let said = shell.expect("kubectl exec target -- /bin/sh -c 'echo out; echo $HOSTNAME'").await?;
    ensure!(said == "out\ntarget\n", "{said}");
    let said = shell.expect("kubectl exec target -- sh -c 'echo quiet; echo loud >&2' 2>/dev/null").await?;
    ensure!(said == "quiet\n", "{said}");
    let said =
        shell.expect("kubectl exec target -- sh -c 'echo quiet; echo loud >&2' 2>&1 >/dev/null").await?;
    ensure!(said == "loud\n", "{said}");
    let (code, said) = shell.say("kubectl exec target -- sh -c 'exit 3'").await?;
    ensure!(code == 3 && said == "command terminated with exit code 3\n", "{code} {said}");
    let said = shell.expect("printf 'a\\nb\\n' | kubectl exec -i target -- wc -l").await?;
    ensure!(said.trim() == "2", "its input ends when the client's does: {said}");
    // More than fits into one message, there and back.
    let big = "head -c 3000000 /dev/zero | kubectl exec -i target -- cat | wc -c";
    ensure!(shell.expect(big).await?.trim() == "3000000");
    let (code, said) = shell.say("kubectl exec target -- no-such-program").await?;
    ensure!(code == 1 && said.contains("executable file not found in $PATH"), "{said}");
    let (code, said) = shell.say("kubectl exec target -c nosuch -- true").await?;
    ensure!(code == 1 && said.contains("container nosuch is not valid for pod target"), "{said}");
    let (code, said) = shell.say("kubectl exec nosuch -- true").await?;
    ensure!(code == 1 && said.contains("pods \"nosuch\" not found"), "{said}");
    ground.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_types_at_a_terminal() -> anyhow::Result<()> {
    let Some((ground, shell)) = begin("terminal").await? else { return Ok(()) };
    if shell.say("command -v script && command -v setsid").await?.0 != 0 {
        tests::skipped("a terminal", "util-linux is not installed");
        return Ok(());
    }
    running(&shell, "exec sleep 1000").await?;
    let inner = "sh -c 'stty size; read line; echo got \\$line; exit 4'";
    let command = format!(
        "printf 'stty rows 33 cols 99; exec \"$KUBECTL\" --namespace \"$NAMESPACE\" exec -it target -- %s' \"{inner}\" >type.sh; \
         echo hello | script -qec 'sh type.sh' /dev/null"
    );
    let (code, said) = shell.say(&command).await?;
    ensure!(code == 4 && said.contains("33 99") && said.contains("got hello"), "{code} {said}");
    ground.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_listened_to() -> anyhow::Result<()> {
    let Some((ground, shell)) = begin("attach").await? else { return Ok(()) };
    running(&shell, "echo before; while sleep 0.1; do echo tick; done").await?;
    let mut attached = shell.start("kubectl attach target")?;
    attached.line_with("tick").await?;
    ground.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_are_forwarded() -> anyhow::Result<()> {
    let Some((ground, shell)) = begin("forward").await? else { return Ok(()) };
    running(&shell, "exec sleep 1000").await?;
    // The pod's address is one of this machine's, so the test can be what listens there.
    let ip = shell.expect("kubectl get pod target -o jsonpath='{.status.podIP}'").await?;
    let listener = TcpListener::bind((ip.as_str(), 0)).await?;
    let port = listener.local_addr()?.port();
    let echo = tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = connection.split();
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
            });
        }
    });
    let mut forwarding = shell.start(&format!("kubectl port-forward pod/target :{port}"))?;
    let line = forwarding.line_with("Forwarding from 127.0.0.1:").await?;
    let local = line.split(':').nth(1).and_then(|rest| rest.split_whitespace().next());
    let local: u16 = local.context("no port in what kubectl says")?.parse()?;
    // Two connections at once, one of them with more than fits into a frame.
    let (mut small, mut large) =
        (TcpStream::connect(("127.0.0.1", local)).await?, TcpStream::connect(("127.0.0.1", local)).await?);
    let sent = vec![7; 300_000];
    let (mut reader, mut writer) = large.split();
    let send = async {
        writer.write_all(&sent).await?;
        writer.shutdown().await
    };
    let receive = async {
        let mut back = Vec::new();
        reader.read_to_end(&mut back).await.map(|_| back)
    };
    let (sending, received) = tokio::join!(send, receive);
    sending?;
    ensure!(received? == sent, "what comes back is what was sent");
    small.write_all(b"hello").await?;
    let mut back = [0; 5];
    small.read_exact(&mut back).await?;
    ensure!(&back == b"hello");
    echo.abort();
    ground.stop().await;
    Ok(())
}
